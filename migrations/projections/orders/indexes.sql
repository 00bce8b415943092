alter table orders add primary key (order_id);
create index orders_placed on orders (placed_at, order_id);
create index orders_customer on orders (customer_id, placed_at, order_id);
create index orders_status on orders (status, placed_at, order_id);
