-- What all read models share: their versions, how far each has read the log, and who feeds it.
-- The tables of a version live in a schema of its own, made from projections/<name>/; queries see only views in `read`.

create schema control;
create schema read;

create table control.version (
    projection  text        not null,
    version     integer     not null check (version > 0),
    schema_name text        not null unique,
    -- The code that writes its rows; other code must not feed it.
    fingerprint text        not null,
    state       text        not null check (state in ('building', 'live')),
    serving     boolean     not null default false,
    created_at  timestamptz not null default now(),
    served_at   timestamptz,
    primary key (projection, version),
    check (state = 'live' or not serving)
);
create unique index version_serving on control.version (projection) where serving;
create unique index version_building on control.version (projection) where state = 'building';

-- Moves in the transaction of the rows and fences it: a writer whose expected offset is not here changes nothing.
-- Half-empty pages keep its updates off the index and within the page.
create table control.checkpoint (
    projection    text        not null,
    version       integer     not null,
    partition     integer     not null,
    serving       boolean     not null,
    next_offset   bigint      not null default 0,
    term          bigint      not null default 0,
    -- Of the last event applied, for tokens and to tell another log from this one; null before the first.
    last_offset   bigint,
    last_event_id uuid,
    last_time     timestamptz,
    events        bigint      not null default 0,
    -- Why nothing more is applied; null while all is well.
    stopped       text,
    updated_at    timestamptz not null default now(),
    primary key (projection, version, partition),
    foreign key (projection, version) references control.version on delete cascade
) with (fillfactor = 20, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);

-- Who feeds what, so that two do not race. Safety is the checkpoint's: leases may vanish in a crash.
create unlogged table control.lease (
    projection text        not null,
    version    integer     not null,
    partition  integer     not null,
    holder     uuid        not null,
    until      timestamptz not null,
    primary key (projection, version, partition)
) with (fillfactor = 20);

create view read.checkpoint as
select projection, version, partition, next_offset, last_offset, last_time, stopped
from control.checkpoint
where serving;
