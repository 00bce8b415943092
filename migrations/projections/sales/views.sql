create or replace view read.sales as
select bucket, currency, orders, revenue, discounts
from sales;
create or replace view read.sales_product as
select bucket, product_id, units
from sales_product;
