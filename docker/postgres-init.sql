-- The databases and logins of compose.yaml: run by the image when its volume is new, and again whenever you like, with
-- the passwords of docker/.env:
--
--     docker compose exec postgres psql --username postgres --dbname warehouse --file /docker-entrypoint-initdb.d/logins.sql
--
-- `pipeline-platform up` makes the same for its embedded server; see docs/decisions/0028-logins-that-cannot-stop-loading.md.
\set ON_ERROR_STOP on
\getenv owner OWNER_PASSWORD
\getenv loader LOADER_PASSWORD
\getenv reader READER_PASSWORD
\getenv analyst ANALYST_PASSWORD
\getenv dagster DAGSTER_PASSWORD
\getenv dagster_reader DAGSTER_READER_PASSWORD

select format('create role %I', name)
from unnest(array['pipeline_loader', 'pipeline_reader', 'pipeline', 'loader', 'reader', 'analyst', 'dagster',
    'dagster_reader']) name
where not exists (select from pg_roles where rolname = name) \gexec

alter role pipeline login nosuperuser nocreatedb nocreaterole password :'owner';
alter role loader login nosuperuser nocreatedb nocreaterole password :'loader';
alter role reader login nosuperuser nocreatedb nocreaterole connection limit 20 password :'reader';
alter role analyst login nosuperuser nocreatedb nocreaterole connection limit 10 password :'analyst';
alter role dagster login nosuperuser nocreatedb nocreaterole password :'dagster';
alter role dagster_reader login nosuperuser nocreatedb nocreaterole connection limit 10 password :'dagster_reader';
grant pipeline_loader to loader;
grant pipeline_reader to reader, analyst;

-- What a login has set for itself goes; what only a superuser may set, it cannot lift.
select format('alter role %I reset all', name) from unnest(array['reader', 'analyst', 'dagster_reader']) name
union all
select format('alter role %I in database %I reset all', r.rolname, d.datname)
from pg_db_role_setting s join pg_roles r on r.oid = s.setrole join pg_database d on d.oid = s.setdatabase
where r.rolname in ('reader', 'analyst', 'dagster_reader')
union all
select format('alter role %I set %I to %L', name, setting, value)
from unnest(array['reader', 'analyst', 'dagster_reader']) name,
    (values ('default_transaction_read_only', 'on'), ('idle_in_transaction_session_timeout', '60s'),
        ('statement_timeout', '30s'), ('temp_file_limit', '1GB')) settings (setting, value) \gexec

alter database warehouse owner to pipeline;
revoke connect on database warehouse from public;
grant connect on database warehouse to loader, reader, analyst;
\ir /srv/rights.sql

select 'create database warehouse_dagster owner dagster'
where not exists (select from pg_database where datname = 'warehouse_dagster') \gexec
revoke connect on database warehouse_dagster, postgres, template1 from public;
grant connect on database warehouse_dagster to dagster_reader;
\connect warehouse_dagster
\ir /srv/rights.sql
-- Dagster makes its tables later, and here nobody is there to grant the two that the gauges need.
alter default privileges for role dagster in schema public grant select on tables to dagster_reader;
