alter table history add primary key (stream_kind, stream_id, version);
