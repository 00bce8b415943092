create or replace view read.wishlists as
select customer_id, product_id, version, added_at
from wishlists;
