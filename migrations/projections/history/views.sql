create or replace view read.history as
select stream_kind, stream_id, version, event_id, event_type, schema_version, occurred_at, command_id, correlation_id,
       causation_id, partition, log_offset, body
from history;
