"""Who may do what: the owner migrates, the loader loads, the reader reads."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import sql

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import PermanentError
from pipeline_platform.local import logins
from pipeline_platform.local.logins import settle_login
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.warehouse.dead_letters import LetterFilter, purge
from pipeline_platform.warehouse.engine import connect, warehouse_errors
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform.warehouse.reconcile import freshness
from pipeline_platform.warehouse.replays import begin, discard
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    TELEMETRY,
    entry,
    event,
    execute,
    ledger_agrees,
    load_entries,
    minutes_agree,
    rows,
)
from pipeline_platform_tests.integration.letters import Replays, refuse

Login = Callable[[str], sa.Engine]
DAY = 86_400_000


@pytest.fixture
def login(engine: sa.Engine, database_url: str, postgres_server: PostgresServer) -> Iterator[Login]:
    """Makes a login in a role of a migrated warehouse."""
    migrate(engine, load_specs().values())
    engines: list[tuple[str, sa.Engine]] = []

    def make(role: str) -> sa.Engine:
        name = f"test_{uuid.uuid4().hex}"
        settle_login(database_url, logins.Login(name, role), "secret")
        url = sa.make_url(database_url).set(username=name, password="secret").render_as_string(hide_password=False)
        engines.append((name, connect(url)))
        return engines[-1][1]

    yield make
    for name, made in engines:
        made.dispose()
        with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_the_loader_can_do_all_that_a_run_and_its_checks_do(login: Login) -> None:
    loader = login("pipeline_loader")
    assert load_entries(loader, TELEMETRY, entry(0, event(), event(ts=NOW_MS - DAY), b"x")).loaded == 2
    assert load_entries(loader, TELEMETRY, entry(1, event(), event(source="new", ts=NOW_MS - 2 * DAY))).loaded == 2
    ledger = Ledger(loader)
    assert ledger.totals("telemetry").events_loaded == 4
    assert ledger.watermark("telemetry") == ledger.last_planned("telemetry").next()
    assert minutes_agree(loader, TELEMETRY).holds
    assert ledger_agrees(loader, TELEMETRY).holds
    assert freshness(loader, TELEMETRY).total_seconds() == 0


def test_the_loader_can_replay_and_discard_dead_letters(login: Login) -> None:
    replays = Replays(login("pipeline_loader"))
    refuse(replays.engine, range(1, 21))
    discard(replays.engine, LetterFilter(ids=(1,)), requested_by="test")
    edit = Edit.parse({"merge": {"colour": None}})
    begun = begin(replays.engine, LetterFilter(), edit, requested_by="test", streams=("telemetry",))
    assert replays.finish(begun).passed == 19
    assert purge(replays.engine, {"replayed": timedelta(0)}, datetime.now(UTC)) == {"replayed": 19}


def test_the_loader_cannot_change_the_tables(login: Login) -> None:
    loader = login("pipeline_loader")
    for statement in (
        "drop table telemetry_events",
        "drop table telemetry_minutes",
        "truncate assets",
        "alter table telemetry_events add column x int",
        "create table mine (x int)",
        "drop view telemetry",
        "drop function pipeline_ensure_partition(text, date)",
        "alter function pipeline_ensure_partition(text, date) owner to pipeline_loader",
    ):
        with pytest.raises(PermanentError, match="42501"), warehouse_errors():
            execute(loader, statement)


def test_the_reader_sees_every_view_and_table_also_partitions_made_later(login: Login) -> None:
    reader, loader = login("pipeline_reader"), login("pipeline_loader")
    for number in range(3):
        load_entries(loader, TELEMETRY, entry(number, event(ts=NOW_MS - number * DAY), b"x"))
        seen = (number + 1,)
        for name in ("telemetry", "telemetry_1m", "telemetry_events", "telemetry_minutes", "assets", "dead_letters"):
            assert rows(reader, f'select count(*) from "{name}"') == [seen]
    assert rows(reader, "select count(*) from orders") == [(0,)]
    assert rows(reader, "select name from streams order by 1") == [("orders",), ("telemetry",)]


def test_the_reader_cannot_write(login: Login) -> None:
    reader = login("pipeline_reader")
    for statement in (
        "insert into telemetry_minutes (series_id, window_start, events) values (1, now(), 1)",
        "update assets set state = 'dead'",
        "delete from dead_letters",
        "truncate telemetry_events",
        "select pipeline_ensure_partition('telemetry', '2025-01-01')",
        "create table mine (x int)",
    ):
        with pytest.raises(PermanentError, match="42501"), warehouse_errors():
            execute(reader, statement)


def test_the_reader_keeps_seeing_a_view_that_a_migration_changes(login: Login, engine: sa.Engine) -> None:
    reader = login("pipeline_reader")
    wider = TELEMETRY.model_copy(update={"description": "another"})
    migrate(engine, [wider])
    assert rows(reader, "select count(*) from telemetry_1m") == [(0,)]


def test_a_migration_works_beside_tables_that_the_owner_may_not_touch(
    database_url: str, postgres_server: PostgresServer
) -> None:
    name = f"test_{uuid.uuid4().hex}"
    settle_login(database_url, logins.Login(name), "secret")
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("create table somebody_elses (x int)")
        connection.execute(sql.SQL("grant create on schema public to {}").format(sql.Identifier(name)))
    url = sa.make_url(database_url).set(username=name, password="secret").render_as_string(hide_password=False)
    owner = connect(url)
    migrate(owner, load_specs().values())
    migrate(owner, load_specs().values())
    assert load_entries(owner, TELEMETRY, entry(0, event())).loaded == 1
    owner.dispose()
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))
