-- What customers wish for: ids only, nothing personal.
create table wishlists (
    customer_id uuid        not null,
    product_id  uuid        not null,
    partition   integer     not null,
    -- Of the stream, with the event that put it on the list: the order of the list.
    version     bigint      not null,
    added_at    timestamptz not null
);
