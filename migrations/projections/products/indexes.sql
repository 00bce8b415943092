alter table products add primary key (product_id);
-- Lists show what is sold; one that is not is found by its id only.
create index products_created on products (created_at, product_id) where listed and not discontinued;
create index products_category on products (category, created_at, product_id) where listed and not discontinued;
