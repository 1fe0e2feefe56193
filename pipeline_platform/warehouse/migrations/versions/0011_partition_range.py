"""Partitions of days that an event may have, and of no others: a loader gone astray could make millions of them."""

from __future__ import annotations

from alembic import op

revision = "0011"
down_revision = "0010"

# A stream takes events of at most 36,500 days back or ahead of their arrival (`Policies` in core/streams.py).
RANGE = """
    if day is null or day < date '1900-01-01' or day > current_date + 36525 then
        raise exception 'no event has the day %', day
            using errcode = 'datetime_field_overflow', hint = 'Days are from 1900 to a hundred years from now.';
    end if;"""

PARTITION = """
create or replace function pipeline_ensure_partition(stream_name text, day date) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    parent text := stream_name || '_events';
    child text := format('%s_events_%s', stream_name, to_char(day, 'YYYYMMDD'));
begin{range}
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
    op.execute(PARTITION.replace("{range}", RANGE))


def downgrade() -> None:
    op.execute(PARTITION.replace("{range}", ""))
