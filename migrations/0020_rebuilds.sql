-- How far the indexes of a version are: none, the key alone, or all. A rebuild fills tables without any and makes them
-- last; only a version with all of them is fed event by event, and may serve.
alter table control.version
    add column indexes text not null default 'all' check (indexes in ('none', 'key', 'all')),
    add check (indexes = 'all' or not serving);
