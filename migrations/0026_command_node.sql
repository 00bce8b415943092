-- The process that decides commands on a log. There is one at a time; the log keeps two from doing harm, and this row
-- keeps a second one from taking over by mistake.
create table control.command_node (
    -- The topic of the log.
    log    text        primary key,
    holder uuid        not null,
    until  timestamptz not null
);
