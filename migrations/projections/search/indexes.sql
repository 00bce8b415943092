alter table search add primary key (product_id);
create index search_created on search (created_at, product_id);
-- Without a pending list, which every search would have to read.
create index search_name on search using gin (name) with (fastupdate = off);
create index search_whole on search using gin (whole) with (fastupdate = off);
create index search_word_alike on search_word using gin (word public.gin_trgm_ops) with (fastupdate = off);
