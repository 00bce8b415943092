-- A partition with an event that cannot be applied is filled in bulk up to there only: the ordinary feed, which parks the
-- stream, does the rest.
alter table control.checkpoint add column bulk_over boolean not null default false;

-- `parked`: one of the two versions keeps streams back, so that there was nothing to compare.
alter table control.version
    drop constraint version_verified_check,
    add constraint version_verified_check
        check (verified in ('equal', 'different', 'changed', 'parked'));
