create table orders (
    order_id         uuid        not null,
    partition        integer     not null,
    -- Of the stream; must grow by one with each event.
    version          bigint      not null,
    -- Of the last event that changed the order as shown.
    shown_version    bigint      not null,
    customer_id      uuid        not null,
    status           text        not null,
    items            json        not null,
    currency         text,
    subtotal         bigint,
    discount         bigint,
    discounts        json        not null,
    total            bigint,
    payment_method   text        not null,
    payment_id       text,
    payment          text        not null,
    reason           text,
    -- Encrypted with the customer's key, as the address is.
    sealed_reason    text,
    shipping_address text,
    placed_at        timestamptz not null,
    updated_at       timestamptz not null
) with (fillfactor = 80);
