create table products (
    product_id    uuid        not null,
    partition     integer     not null,
    version       bigint      not null,
    shown_version bigint      not null,
    -- An order can be closed at a product that was never added.
    listed        boolean     not null,
    name          text        not null,
    description   text,
    category      text,
    price         bigint      not null,
    currency      text        not null,
    on_hand       bigint      not null,
    reserved      bigint      not null,
    shipped       bigint      not null,
    discontinued  boolean     not null,
    created_at    timestamptz not null,
    updated_at    timestamptz not null
) with (fillfactor = 50);
