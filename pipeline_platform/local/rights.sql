-- Closes what PostgreSQL leaves open to every login of a database: run it there as a superuser, again whenever you like.
--
--     psql --dbname warehouse --file rights.sql
--
-- `pipeline-platform up` does this to the embedded server each time; see docs/decisions/0028-logins-that-cannot-stop-loading.md.
do $rights$
declare
    keepers text;  -- the database's owner, and who loads
    one record;
begin
    select string_agg(quote_ident(rolname), ', ') into keepers from pg_roles
    where rolname = 'pipeline_loader'
        or oid = (select datdba from pg_database where datname = current_database());
    for one in
        select oid::regprocedure as name, proname ~ 'advisory' as locks from pg_proc
        where pronamespace = 'pg_catalog'::regnamespace and (
            -- Planning, folding, rollups and migrations take turns by these. Who unlocks, unlocks only what is its own.
            (proname ~ 'advisory' and proname !~ 'unlock')
            -- Large objects stay, whatever the tables' rights are.
            or proname in (
                'lo_creat', 'lo_create', 'lo_from_bytea', 'lo_import', 'lo_open', 'lo_put', 'lo_truncate',
                'lo_truncate64', 'lo_unlink', 'lo_export', 'lowrite'
            )
            -- Up to a gigabyte of write-ahead log a call, and a transaction id a call, of which there are two billion
            -- while an old snapshot is kept: both also from a read-only transaction.
            or proname in ('pg_logical_emit_message', 'pg_current_xact_id', 'txid_current')
        )
    loop
        execute format('revoke execute on function %s from public', one.name);
        if one.locks then
            execute format('grant execute on function %s to %s', one.name, keepers);
        end if;
    end loop;
    execute format('revoke temporary on database %I from public', current_database());
    execute format('grant temporary on database %I to %s', current_database(), keepers);
    revoke create on schema public from public;
end
$rights$;
