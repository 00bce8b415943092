create or replace view read.products as
select product_id, shown_version, name, description, category, price, currency, on_hand, reserved, shipped,
       created_at, updated_at, discontinued
from products
where listed;
