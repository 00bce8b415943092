-- Every event of every stream as it stands in the log. The largest table: wide columns first, so that none is padded.
create table history (
    version        bigint      not null,
    log_offset     bigint      not null,
    occurred_at    timestamptz not null,
    partition      integer     not null,
    stream_kind    smallint    not null,
    schema_version smallint    not null,
    stream_id      uuid        not null,
    event_id       uuid        not null,
    command_id     uuid        not null,
    correlation_id uuid        not null,
    causation_id   uuid        not null,
    event_type     text        not null,
    body           text        not null
);
