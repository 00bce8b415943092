-- Products by their words, as long as they are sold. The words are made by the program, so that they are the same on
-- every server: without marks and letter case, and no dictionary.
create table search (
    product_id uuid        not null,
    partition  integer     not null,
    created_at timestamptz not null,
    -- The words of the name; of name (weight A), category (B) and description (D).
    name       tsvector    not null,
    whole      tsvector    not null
);
-- Every word that a product ever had, and in how many it is now: in their names, and anywhere. What a mistyped word is
-- compared with, and how a search knows what it will cost.
create table search_word (
    word      text collate "C" not null,
    partition integer          not null,
    names     bigint           not null,
    products  bigint           not null,
    primary key (word, partition)
) with (fillfactor = 70);
