-- Streams that a version cannot apply: from one event on they are kept back, in order, and the rest of their partition goes
-- on. The events themselves stay in the log.

create table control.parked (
    projection     text        not null,
    version        integer     not null,
    partition      integer     not null,
    stream_kind    smallint    not null,
    stream_id      uuid        not null,
    -- Of the first event kept back: everything before it is applied.
    stream_version bigint      not null,
    first_offset   bigint      not null,
    -- Where to begin to read for it: before its batch.
    read_offset    bigint      not null,
    read_term      bigint      not null,
    -- Of the last event kept back, and how many there are.
    last_offset    bigint      not null,
    events         bigint      not null,
    reason         text        not null,
    first_time     timestamptz not null,
    last_time      timestamptz not null,
    parked_at      timestamptz not null default clock_timestamp(),
    -- How often it was tried again, in vain.
    tries          integer     not null default 0,
    primary key (projection, version, partition, stream_kind, stream_id),
    foreign key (projection, version) references control.version on delete cascade
);
create index parked_stream on control.parked (stream_kind, stream_id);

-- How many streams of the partition are parked.
alter table control.checkpoint add column parked integer not null default 0;

-- Whether it may serve although it has streams parked that the serving version shows.
alter table control.version add column with_parked boolean not null default false;

create or replace view read.checkpoint as
select projection, version, partition, next_offset, last_offset, last_time, stopped, parked
from control.checkpoint
where serving;

create view read.parked as
select projection, p.version, partition, stream_kind, stream_id, stream_version
from control.parked p join control.version v using (projection)
where v.serving and v.version = p.version;
