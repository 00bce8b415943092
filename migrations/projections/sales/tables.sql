-- Sums by the hour in which orders were confirmed, of the orders of one partition; cancelled ones are taken out again.
-- Both grow without bound in what they count, so they must not be able to overflow.
create table sales (
    bucket    timestamptz not null,
    partition integer     not null,
    currency  text        not null,
    orders    bigint      not null,
    revenue   numeric     not null,
    discounts numeric     not null,
    primary key (bucket, partition, currency)
);
create table sales_product (
    bucket     timestamptz not null,
    partition  integer     not null,
    product_id uuid        not null,
    units      numeric     not null,
    primary key (bucket, product_id, partition)
);
-- Orders that are priced and may still be confirmed or cancelled: what they add to the sums, or would.
create table sales_order (
    order_id  uuid        not null primary key,
    partition integer     not null,
    -- Null until it is confirmed.
    bucket    timestamptz,
    currency  text        not null,
    revenue   bigint      not null,
    discounts bigint      not null,
    lines     json        not null
);
