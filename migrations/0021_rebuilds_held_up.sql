-- A rebuild can be paused, and can be told to take little of the machine. Its rate is counted from when it was begun or
-- resumed, and from what it had then.
alter table control.version
    add column paused      boolean     not null default false,
    add column gentle      boolean     not null default false,
    add column rate_since  timestamptz not null default now(),
    add column rate_events bigint      not null default 0;
