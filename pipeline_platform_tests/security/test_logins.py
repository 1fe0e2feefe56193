"""Nobody who only reads can stop loading, keep state, or alter what another login depends on (finding F5)."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors, sql

from pipeline_platform.local.databases import GAUGED, tune_history
from pipeline_platform.warehouse.engine import READING, connect
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform_tests.integration.batches import NOW_MS, TELEMETRY, entry, event, load_entries
from pipeline_platform_tests.security.servers_kit import Running, running_database

PEOPLE = pytest.mark.parametrize("login", ["reader", "analyst"])

# Every function of PostgreSQL 18 by its name: one that a newer version adds has to be looked at, and fails the test.
LOCKS = {
    "pg_advisory_lock", "pg_advisory_lock_shared", "pg_advisory_xact_lock", "pg_advisory_xact_lock_shared",
    "pg_try_advisory_lock", "pg_try_advisory_lock_shared", "pg_try_advisory_xact_lock",
    "pg_try_advisory_xact_lock_shared",
}  # fmt: skip
UNLOCKS = {"pg_advisory_unlock", "pg_advisory_unlock_shared", "pg_advisory_unlock_all"}  # one's own only
WRITERS = {
    "lo_creat", "lo_create", "lo_from_bytea", "lo_import", "lo_open", "lo_put", "lo_truncate", "lo_truncate64",
    "lo_unlink", "lo_export", "lowrite",
}  # fmt: skip
READERS = {"lo_close", "lo_get", "lo_lseek", "lo_lseek64", "lo_tell", "lo_tell64", "loread"}
LARGE_OBJECTS = "select distinct proname::text from pg_proc where proname ~ '^(lo_|loread|lowrite)'"
ADVISORY = "select distinct proname::text from pg_proc where proname ~ 'advisory'"
CALLS = """
select p.oid::regprocedure::text, p.proname::text,
    (select coalesce(array_agg(t::regtype::text), '{}') from unnest(p.proargtypes::oid[]) t)
from pg_proc p where p.proname = any(%s)
"""
VALUES = {"bigint": "1::bigint", "integer": "1", "oid": "1::oid", "bytea": r"'\x00'::bytea", "text": "'/tmp/x'::text"}


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running_database() as running:
        yield running


def _names(server: Running, query: str) -> set[str]:
    with psycopg.connect(server.url("superuser")) as connection:
        return {str(row[0]) for row in connection.execute(query.encode()).fetchall()}


def _calls(server: Running, names: set[str]) -> list[str]:
    """A call of each function in each of its forms."""
    with psycopg.connect(server.url("superuser")) as connection:
        rows = connection.execute(CALLS, [sorted(names)]).fetchall()
    return [f"select {name}({', '.join(VALUES[kind] for kind in kinds)})" for _, name, kinds in rows]


def _refused(connection: psycopg.Connection[tuple[object, ...]], statement: str) -> None:
    connection.autocommit = statement.startswith(("create database", "alter system"))
    with pytest.raises(errors.InsufficientPrivilege):
        connection.execute(statement.encode())
    connection.rollback()


def test_no_function_of_locks_or_large_objects_is_unknown_to_us(server: Running) -> None:
    assert _names(server, ADVISORY) == LOCKS | UNLOCKS
    assert _names(server, LARGE_OBJECTS) == WRITERS | READERS


@PEOPLE
def test_who_reads_takes_no_advisory_lock_while_planning_and_loading_go_on(server: Running, login: str) -> None:
    calls = _calls(server, LOCKS)
    assert len(calls) == 2 * len(LOCKS)  # of one bigint, of two integers
    with psycopg.connect(server.url(login)) as attacker:
        attacker.execute("set statement_timeout = 0")
        attacker.execute("set default_transaction_read_only = off")
        attacker.commit()
        for call in calls:
            _refused(attacker, call)
        # Its locks that it may take are those of what it reads.
        attacker.execute("select count(*) from telemetry")
        attacker.execute("lock table telemetry_events in access share mode")
        held = attacker.execute("select count(*) from pg_locks where locktype = 'advisory'").fetchone()
        assert held == (0,)
        loader = connect(server.url("loader"))
        try:
            number = Ledger(loader).last_planned("telemetry").next().ms - NOW_MS if login == "analyst" else 0
            assert load_entries(loader, TELEMETRY, entry(number + 1, event())).loaded == 1  # plans it first
        finally:
            loader.dispose()


@pytest.mark.parametrize("login", ["owner", "loader"])
def test_who_loads_takes_them_as_before(server: Running, login: str) -> None:
    with psycopg.connect(server.url(login)) as connection:
        for call in _calls(server, LOCKS):
            connection.execute(call.encode())
            connection.rollback()


@PEOPLE
def test_who_reads_keeps_nothing(server: Running, login: str) -> None:
    with psycopg.connect(server.url(login)) as attacker:
        assert attacker.execute("show default_transaction_read_only").fetchone() == ("on",)
        attacker.execute("set default_transaction_read_only = off")
        attacker.commit()
        for call in _calls(server, WRITERS):
            _refused(attacker, call)
        for statement in (
            "create temporary table mine (x int)",
            "create table mine (x int)",
            "create schema mine",
            "create function mine() returns int language sql as 'select 1'",
            "create view mine as select 1",
            "select * into mine from assets",
            "insert into assets (asset_key, state) values ('x', 'dead')",
            "update assets set state = 'dead'",
            "delete from dead_letters",
            "truncate telemetry_events",
            "select * from assets for update",
            "select * from assets for key share",
            "lock table assets in row share mode",
            "lock table telemetry_events in share mode",
            "select pipeline_ensure_partition('telemetry', '2025-01-01')",
            "select pg_logical_emit_message(false, 'x', 'x')",
            "select pg_current_xact_id()",
            "select txid_current()",
            "select nextval(pg_get_serial_sequence('assets', 'id'))",
            "comment on table assets is 'x'",
            "copy assets to program 'id'",
            "copy assets to '/tmp/x'",
            "select pg_read_file('/etc/passwd')",
            "select rolpassword from pg_authid",
            "create database mine",
            "create role mine",
            "alter system set jit = on",
            "select pg_reload_conf()",
            "create extension hstore",
            "select pg_switch_wal()",
        ):
            _refused(attacker, statement)
        # Whatever it reads, it is given no transaction id, and leaves nothing that others would have to clean up.
        attacker.autocommit = False
        attacker.execute("select * from telemetry, pg_sleep(0)")
        assert attacker.execute("select pg_current_xact_id_if_assigned()").fetchone() == (None,)
        attacker.rollback()
    with psycopg.connect(server.url("superuser")) as connection:
        assert connection.execute("select count(*) from pg_largeobject_metadata").fetchone() == (0,)


@PEOPLE
def test_who_reads_lifts_no_bound_that_is_not_its_own_to_set(server: Running, login: str) -> None:
    with psycopg.connect(server.url(login)) as attacker:
        assert attacker.execute("show temp_file_limit").fetchone() == ("1GB",)
        assert attacker.execute("show idle_in_transaction_session_timeout").fetchone() == ("1min",)
        assert attacker.execute("show statement_timeout").fetchone() == ("30s",)
        attacker.execute("set default_transaction_read_only = off")
        attacker.commit()
        me = attacker.info.user
        _refused(attacker, "set temp_file_limit = -1")
        attacker.execute(f"alter role {me} reset all".encode())  # takes away what it may set, and not this
        attacker.commit()
        for statement in (
            f"alter role {me} set temp_file_limit = -1",
            f"alter role {me} connection limit 1000",
            f"alter role {me} createrole",
            f"alter role {me} superuser",
            f"alter role {me} valid until '2020-01-01'",
            "alter role loader set statement_timeout = 1",
            "alter role loader password 'x'",
            "alter role pipeline_reader set statement_timeout = 1",
            f"alter role {'analyst' if me == 'reader' else 'reader'} password 'x'",
            f"alter role {'analyst' if me == 'reader' else 'reader'} set search_path = nowhere",
            "alter database warehouse set search_path = nowhere",
            "alter role all set search_path = nowhere",
            f"drop role {me}",
            f"drop role {'analyst' if me == 'reader' else 'reader'}",
            "set role pipeline",
            "set role loader",
            f"set role {'analyst' if me == 'reader' else 'reader'}",
            "set session authorization pipeline",
            f"grant pipeline_loader to {me}",
        ):
            _refused(attacker, statement)
    with psycopg.connect(server.url(login)) as later:
        assert later.execute("show temp_file_limit").fetchone() == ("1GB",)
    server.again()


@PEOPLE
def test_who_reads_ends_nobody_elses_session(server: Running, login: str) -> None:
    other = "analyst" if login == "reader" else "reader"
    with psycopg.connect(server.url(login), autocommit=True) as attacker:
        for victim in ("loader", "owner", other):
            with psycopg.connect(server.url(victim)) as connection:
                for function in ("pg_terminate_backend", "pg_cancel_backend"):
                    with pytest.raises(errors.InsufficientPrivilege):
                        attacker.execute(f"select {function}({connection.info.backend_pid})".encode())
                connection.execute("select 1")


@PEOPLE
def test_connections_of_one_login_leave_room_for_the_others(server: Running, login: str) -> None:
    limit = {"reader": 20, "analyst": 10}[login]
    held: list[psycopg.Connection[tuple[object, ...]]] = []
    try:
        held += [psycopg.connect(server.url(login)) for _ in range(limit)]
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            psycopg.connect(server.url(login))
        psycopg.connect(server.url("loader")).close()
    finally:
        for connection in held:
            connection.close()


def test_what_an_analyst_does_to_its_login_does_not_reach_the_gateway_and_is_undone(server: Running) -> None:
    with psycopg.connect(server.url("analyst"), autocommit=True) as attacker:
        attacker.execute("set default_transaction_read_only = off")
        for statement in (
            "alter role analyst set statement_timeout = 0",
            "alter role analyst set search_path = nowhere",
            "alter role analyst in database warehouse set search_path = nowhere_else",
            "alter role analyst set local_preload_libraries = 'nothing'",
            "alter role analyst password 'taken'",
        ):
            attacker.execute(statement.encode())
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(server.url("analyst"))
    assert _gateway_reads(server)

    server.again()

    with psycopg.connect(server.url("analyst")) as connection:
        assert connection.execute("show statement_timeout").fetchone() == ("30s",)
        assert connection.execute("show search_path").fetchone() == ('"$user", public',)
        assert connection.execute("select count(*) >= 0 from telemetry").fetchone() == (True,)


def test_the_gateways_connections_say_themselves_what_they_need(server: Running) -> None:
    with psycopg.connect(server.url("reader"), autocommit=True) as attacker:
        attacker.execute("set default_transaction_read_only = off")
        for setting, value in (
            ("search_path", "nowhere"),
            ("statement_timeout", "1"),
            ("default_transaction_read_only", "off"),
            ("default_transaction_isolation", "serializable"),
            ("local_preload_libraries", "nothing"),
            ("timezone", "Asia/Tokyo"),
            ("datestyle", "German"),
        ):
            change = sql.SQL("alter role reader set {} to {}").format(sql.Identifier(setting), sql.Literal(value))
            attacker.execute(change)
            where = sql.SQL("alter role reader in database warehouse set {} to {}")
            attacker.execute(where.format(sql.Identifier(setting), sql.Literal(value)))
    try:
        assert _gateway_reads(server)
    finally:
        server.again()


def _gateway_reads(server: Running) -> bool:
    """Whether the gateway's engine works, with the settings that it asked for."""
    engine = connect(server.url("reader"), settings=READING)
    shown = {**READING, "idle_in_transaction_session_timeout": "1min", "timezone": "UTC"}
    shown |= {"default_transaction_isolation": "read committed", "datestyle": "ISO, MDY"}
    try:
        with engine.connect() as connection:
            for setting, value in shown.items():
                assert connection.scalar(sa.text(f"show {setting}")) == value, setting
            return connection.scalar(sa.text("select count(*) >= 0 from telemetry")) is True
    finally:
        engine.dispose()


def test_logins_reach_their_own_databases_only(server: Running) -> None:
    reached = {
        (login, name)
        for login in ("owner", "loader", "reader", "analyst", "dagster", "dagster_reader")
        for name in ("warehouse", "dagster", "postgres", "template1")
        if _connects(server.url(login, name))
    }
    assert reached == {
        ("owner", "warehouse"),
        ("loader", "warehouse"),
        ("reader", "warehouse"),
        ("analyst", "warehouse"),
        ("dagster", "dagster"),
        ("dagster_reader", "dagster"),
    }


def _connects(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError as error:
        return "permission denied for database" not in str(error)
    return True


def test_the_gauges_login_reads_what_the_gauges_read(server: Running) -> None:
    tune_history(server.where.dagster_url)
    with psycopg.connect(server.url("dagster_reader", "dagster")) as connection:
        for table in GAUGED:
            connection.execute(sql.SQL("select * from {}").format(sql.Identifier(table)))
        connection.execute("select pg_total_relation_size('runs')")
        connection.execute("set default_transaction_read_only = off")
        connection.commit()
        for statement in (
            "select * from runs",
            "insert into daemon_heartbeats values ('x')",
            "create table mine (x int)",
            "create temporary table mine (x int)",
            "select pg_advisory_lock(1)",
        ):
            _refused(connection, statement)


def test_nobody_but_the_superuser_is_one(server: Running) -> None:
    powers = "rolsuper or rolcreatedb or rolcreaterole or rolreplication or rolbypassrls"
    assert _names(server, f"select rolname::text from pg_roles where {powers}") == {"postgres"}
    owners = "select distinct tableowner::text from pg_tables where schemaname = 'public'"
    assert _names(server, owners) == {"pipeline"}
    with psycopg.connect(server.url("owner")) as connection:
        for statement in (
            "copy assets from program 'id'",
            "select pg_read_file('/etc/passwd')",
            "select rolpassword from pg_authid",
            "alter role analyst superuser",
            "create role mine",
            "create database mine",
            "set role postgres",
        ):
            _refused(connection, statement)


def test_a_server_without_our_rights_is_told_apart(server: Running) -> None:
    """What `doctor` asks: whether everybody may take advisory locks."""
    with psycopg.connect(server.url("superuser", "template1")) as connection:
        row = connection.execute("select has_function_privilege('public', 'pg_advisory_lock(bigint)', 'execute')")
        assert row.fetchone() == (True,)
    with psycopg.connect(server.url("owner")) as connection:
        row = connection.execute("select has_function_privilege('public', 'pg_advisory_lock(bigint)', 'execute')")
        assert row.fetchone() == (False,)
