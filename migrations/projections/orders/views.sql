create or replace view read.orders as
select order_id, shown_version, customer_id, status, items, currency, subtotal, discount, discounts, total,
       payment_method, payment_id, payment, reason, shipping_address, placed_at, updated_at,
       sealed_reason
from orders;
