-- Whoever feeds versions hears at once that one was asked for or changed, and need not come across it with the next look.
create function control.tell_versions() returns trigger language plpgsql as $$
begin
    notify orderlog_versions;
    return null;
end
$$;

create trigger told after insert or update or delete on control.version
    for each statement execute function control.tell_versions();
