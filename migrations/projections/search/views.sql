create or replace view read.search as
select product_id, created_at, name, whole
from search;
create or replace view read.search_word as
select word, names, products
from search_word;
