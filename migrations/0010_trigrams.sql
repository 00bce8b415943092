-- Search compares mistyped words by their trigrams. Who may make tables may make this extension too, on most servers.
do $$
begin
    if not exists (select from pg_extension where extname = 'pg_trgm') then
        create extension pg_trgm with schema public;
    end if;
    if not exists (select from pg_extension where extname = 'pg_trgm' and extnamespace = 'public'::regnamespace) then
        raise exception 'the extension pg_trgm is not in the schema public';
    end if;
exception when others then
    raise exception using errcode = 'OL001', message = sqlerrm;
end $$;
