create or replace view read.customers as
select customer_id, shown_version, email_id, email, first_name, last_name, vip, order_count, created_at, updated_at
from customers
where status in ('registered', 'erased');
