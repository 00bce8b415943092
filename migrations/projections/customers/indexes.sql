alter table customers add primary key (customer_id);
create index customers_email on customers (email_id) where status in ('registered', 'erased');
