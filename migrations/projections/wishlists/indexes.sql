alter table wishlists add primary key (customer_id, product_id);
create index wishlists_newest on wishlists (customer_id, version);
