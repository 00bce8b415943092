-- Before a new version serves, its rows are compared with those of the serving one. `changed`: other code wrote those, so
-- there was nothing to compare. A version that is only to be compared never serves.
alter table control.version
    add column verify_only boolean not null default false,
    add column verified    text check (verified in ('equal', 'different', 'changed')),
    -- The first rows that differ, as JSON.
    add column differences text;
