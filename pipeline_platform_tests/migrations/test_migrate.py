"""migrate: from empty to the newest revision, once, however often and by however many it is called."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import PermanentError, TransientError
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.migrate import (
    VERSION_TABLE,
    check_migrated,
    current_revision,
    differences,
    head_revision,
    migrate,
)
from pipeline_platform.warehouse.schema import metadata
from pipeline_platform_tests.integration.batches import TELEMETRY, entry, event, execute, load_entries, rows

SPECS = tuple(load_specs().values())
# All that a model says of a table and Alembic's comparison leaves out: defaults, checks, keys.
DEFINITIONS = """
select table_name, column_name, data_type, is_nullable, column_default, identity_generation
from information_schema.columns where table_schema = 'public' and table_name = any(:names)
union all
select conrelid::regclass::text, contype::text, pg_get_constraintdef(oid), null, null, null from pg_constraint
where conrelid::regclass::text = any(:names)
union all
select tablename, indexname, indexdef, null, null, null from pg_indexes where tablename = any(:names)
order by 1, 2, 3
"""


def test_an_empty_database_is_brought_to_the_newest_revision(engine: sa.Engine) -> None:
    said: list[str] = []
    migrate(engine, SPECS, say=said.append)
    assert said == [
        f"warehouse schema: empty -> {head_revision()}",
        *(f"{spec.name}: create the stream's tables and views" for spec in SPECS),
    ]
    check_migrated(engine)
    assert [row[0] for row in rows(engine, "select name from streams order by 1")] == sorted(load_specs())
    assert load_entries(engine, TELEMETRY, entry(0, event())).loaded == 1


def test_a_second_migration_does_nothing(engine: sa.Engine) -> None:
    migrate(engine, SPECS)
    before = rows(engine, "select name, applied_at from streams order by 1")
    said: list[str] = []
    migrate(engine, SPECS, say=said.append, sleep=_never)
    assert said == []
    assert rows(engine, "select name, applied_at from streams order by 1") == before


def test_migrating_leaves_no_lock_and_no_timeout_behind_in_the_pool(engine: sa.Engine, database_url: str) -> None:
    migrate(engine, SPECS)
    assert rows(engine, "select * from pg_locks where locktype = 'advisory'") == []
    for connection in (engine.connect(), engine.connect()):
        assert connection.scalar(sa.text("show lock_timeout")) == "0"
        assert connection.scalar(sa.text("show statement_timeout")) == "0"
        connection.close()
    another = connect(database_url)
    migrate(another, SPECS, sleep=_never)
    another.dispose()


def test_migrations_at_once_both_end_well(engine: sa.Engine, database_url: str) -> None:
    start = threading.Barrier(3)

    def run(_: int) -> list[str]:
        said: list[str] = []
        mine = connect(database_url)
        start.wait()
        migrate(mine, SPECS, say=said.append)
        mine.dispose()
        return said

    with ThreadPoolExecutor(3) as pool:
        said = list(pool.map(run, range(3)))
    assert sorted(map(len, said)) == [0, 0, 3]
    with engine.connect() as connection:
        assert differences(connection) == []


def test_models_and_migrations_agree(engine: sa.Engine) -> None:
    migrate(engine, SPECS)
    with engine.connect() as connection:
        assert differences(connection) == []
    names = list(metadata.tables)
    with engine.connect() as connection:
        migrated = connection.execute(sa.text(DEFINITIONS), {"names": names}).all()
        for table in (*names, VERSION_TABLE):
            connection.execute(sa.text(f'drop table "{table}" cascade'))
        metadata.create_all(connection)
        assert connection.execute(sa.text(DEFINITIONS), {"names": names}).all() == migrated


PLANTS = (
    "alter table assets drop column events_late",
    "alter table assets add column surprise text",
    "alter table dead_letters alter column line type bigint",
    "alter table assets alter column state drop not null",
    "drop index assets_by_time",
    "alter table dead_letters drop constraint dead_letters_batch_id_fkey",
    "drop table batch_receipts",
    "comment on column assets.state is 'something else'",
)


def test_a_planted_difference_is_found(engine: sa.Engine) -> None:
    migrate(engine, [])
    for plant in PLANTS:
        with engine.connect() as connection:
            connection.execute(sa.text(plant))
            assert len(differences(connection)) == 1, plant
            connection.rollback()


def test_tables_of_others_are_no_difference_and_get_no_rights(engine: sa.Engine) -> None:
    execute(engine, "create table alembic_version (version_num varchar(32) primary key)")
    execute(engine, "insert into alembic_version values ('29b539ebc72a')")  # Dagster's own storage does this
    migrate(engine, SPECS)
    assert rows(engine, "select version_num from alembic_version") == [("29b539ebc72a",)]
    assert rows(engine, f"select version_num from {VERSION_TABLE}") == [(head_revision(),)]
    with engine.connect() as connection:
        assert differences(connection) == []
    for role in ("pipeline_loader", "pipeline_reader"):
        assert rows(engine, f"select has_table_privilege('{role}', 'alembic_version', 'select')") == [(False,)]


def test_a_warehouse_that_is_not_migrated_is_named(engine: sa.Engine) -> None:
    with pytest.raises(PermanentError, match=r"at no schema, not .*Run `pipeline-platform migrate`"):
        check_migrated(engine)
    migrate(engine, [])
    execute(engine, f"update {VERSION_TABLE} set version_num = '0001'")
    with pytest.raises(PermanentError, match="at 0001"):
        check_migrated(engine)


def test_every_table_and_column_has_its_comment_in_the_database(engine: sa.Engine) -> None:
    migrate(engine, SPECS)
    bare = """
    select c.relname, a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'v') and c.relname <> :version
        and (col_description(c.oid, a.attnum) is null or obj_description(c.oid) is null)
    """
    assert rows(engine, bare, version=VERSION_TABLE) == []


def test_a_lock_that_is_not_to_be_had_is_said_tried_again_and_in_the_end_an_error(engine: sa.Engine) -> None:
    migrate(engine, [])
    said: list[str] = []
    naps: list[float] = []
    with engine.connect() as holder:
        holder.execute(sa.text("lock table streams in access exclusive mode"))
        with pytest.raises(TransientError, match="55P03"):
            migrate(engine, [TELEMETRY], say=said.append, sleep=naps.append, lock_timeout=0.05)
    assert len(naps) == 4
    assert len(said) == 4
    assert all("lock timeout" in line and "Trying again" in line for line in said)
    assert rows(engine, "select to_regclass('telemetry_series')") == [(None,)]


def test_a_lock_that_is_given_up_in_time_is_waited_for(engine: sa.Engine) -> None:
    migrate(engine, [])
    said: list[str] = []
    holder = engine.connect()
    holder.execute(sa.text("lock table streams in access exclusive mode"))
    migrate(engine, [TELEMETRY], say=said.append, sleep=lambda _: holder.close(), lock_timeout=0.05)
    assert said[-1] == "telemetry: create the stream's tables and views"
    with engine.connect() as connection:
        assert current_revision(connection) == head_revision()


def _never(_: float) -> None:
    raise AssertionError("nothing was to be waited for")
