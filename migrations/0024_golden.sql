-- What each build of the program makes of the golden slice (projections/golden). A build is named by a checksum of the
-- sources that decide rows; what it makes of the slice is a function of it, so a note is never changed.
create table control.code (
    projection  text        not null,
    -- Of the read model in that build: its revision and its tables.
    fingerprint text        not null,
    sources     text        not null,
    -- How many events of the slice: it grows at its end.
    events      integer     not null,
    digest      text        not null,
    noted_at    timestamptz not null default now(),
    primary key (projection, fingerprint, sources, events)
);

-- What the code that began a version makes of the slice: code that makes something else of it must not feed that version.
-- Null until it is fed for the first time, or for the first time by a program that knows of this.
alter table control.version
    add column golden_events integer,
    add column golden_digest text,
    add check ((golden_events is null) = (golden_digest is null)),
    -- `undeclared`: code of the same revision that makes other rows wrote the serving version.
    drop constraint version_verified_check,
    add constraint version_verified_check
        check (verified in ('equal', 'different', 'changed', 'parked', 'undeclared'));
