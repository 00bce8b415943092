-- Personal data stays sealed as in the log: destroying the key erases it here too.
create table customers (
    customer_id   uuid        not null,
    partition     integer     not null,
    version       bigint      not null,
    shown_version bigint      not null,
    status        text        not null,
    email_id      uuid        not null,
    email         text        not null,
    first_name    text        not null,
    last_name     text        not null,
    vip           boolean     not null,
    order_count   bigint      not null,
    created_at    timestamptz not null,
    updated_at    timestamptz not null
) with (fillfactor = 70);
