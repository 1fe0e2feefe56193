"""The function by which the loader gets a day's partition."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"

PARTITION = """
create function pipeline_ensure_partition(stream_name text, day date) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    parent text := stream_name || '_events';
    child text := format('%s_events_%s', stream_name, to_char(day, 'YYYYMMDD'));
begin
    if to_regclass(quote_ident(child)) is not null then
        return false;
    end if;
    if not exists (select from streams where name = stream_name) then
        raise exception 'there is no stream %', stream_name using hint = 'Run pipeline-platform migrate.';
    end if;
    perform pg_advisory_xact_lock(hashtext('pipeline partition ' || child));
    -- By query: to_regclass answers from a cache that waiting for an advisory lock does not refresh.
    if exists (select from pg_class where relname = child and relnamespace = 'public'::regnamespace) then
        return false;
    end if;
    -- Attaching takes a weaker lock on the parent than CREATE TABLE ... PARTITION OF: loads go on meanwhile.
    execute format('create table %I (like %I including defaults including comments)', child, parent);
    execute format(
        'alter table %I attach partition %I for values from (%L) to (%L)',
        parent, child, day::text || ' 00:00:00+00', (day + 1)::text || ' 00:00:00+00'
    );
    return true;
end
$$
"""


def upgrade() -> None:
    op.execute(PARTITION)
    op.execute("revoke execute on function pipeline_ensure_partition(text, date) from public")


def downgrade() -> None:
    op.execute("drop function pipeline_ensure_partition(text, date)")
