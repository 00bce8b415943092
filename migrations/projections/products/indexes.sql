alter table products add primary key (product_id);
create index products_created on products (created_at, product_id);
create index products_category on products (category, created_at, product_id);
