"""A state folder of the time when the owner was PostgreSQL's superuser and Dagster kept passwords (F1, F8)."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
import redis
import sqlalchemy as sa
from dagster_postgres import DagsterPostgresStorage
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import SettingError
from pipeline_platform.local import postgres, postgres_cluster
from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.databases import ensure_databases
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.rotation import REDACTED, finish_rotation, rotate_secrets
from pipeline_platform.local.secret_files import secret
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.conftest import VALKEY_MEMORY, make_state_dir, running
from pipeline_platform_tests.integration.batches import TELEMETRY, entry, event, load_entries
from pipeline_platform_tests.security.servers_kit import started

OLD = ("postgres", "valkey", "loader", "reader")
EVERYTHING = """
select c.relname::text, a.attname::text from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'public'::regnamespace and c.relkind = 'r' and a.attnum > 0 and not a.attisdropped
"""


@dataclass(frozen=True)
class Older:
    """A folder as an earlier version left it, stopped, and its passwords."""

    state_dir: Path
    passwords: dict[str, str]


@pytest.fixture
def older(monkeypatch: pytest.MonkeyPatch) -> Iterator[Older]:
    state_dir = make_state_dir()
    passwords = {name: secret(state_dir, name) for name in OLD}
    (state_dir / "secrets" / "api_key").write_text("pp_0badcafe_" + "x" * 32 + "\n")
    with monkeypatch.context() as then:
        then.setattr(postgres_cluster, "SUPERUSER", "pipeline")
        then.setattr(postgres, "SUPERUSER", "pipeline")
        server = PostgresServer.prepare(state_dir, server_account(), durable=False)
        for _ in running(server.service(), state_dir):
            _fill(server, passwords)
    yield Older(state_dir, passwords)
    shutil.rmtree(state_dir.parent)


def _fill(server: PostgresServer, passwords: dict[str, str]) -> None:
    ensure_databases(server.url(), ["warehouse", "dagster"])
    engine = connect(server.url("warehouse"))
    migrate(engine, load_specs().values())
    assert load_entries(engine, TELEMETRY, entry(0, event(), event(), b"x")).loaded == 2
    engine.dispose()
    with psycopg.connect(server.url("warehouse")) as connection:
        for login in ("loader", "reader"):
            made = f"create role {login} login password '{passwords[login]}' in role pipeline_{login}"
            connection.execute(made.encode())
    url = sa.make_url(server.url("dagster")).set(drivername="postgresql+psycopg2")
    DagsterPostgresStorage(url.render_as_string(hide_password=False))
    shown = f'{{"owner_url": "{server.url("warehouse")}", "redis": "redis://:{passwords["valkey"]}@127.0.0.1:1/0"}}'
    with psycopg.connect(server.url("dagster")) as connection:
        for number, text in enumerate((shown, '{"harmless": "config"}')):
            connection.execute(
                "insert into snapshots (snapshot_id, snapshot_body, snapshot_type) values (%s, %s, 'PIPELINE')",
                [f"snapshot-{number}", zlib.compress(text.encode())],
            )
        connection.execute(
            "insert into runs (run_id, snapshot_id, pipeline_name, status, run_body) "
            "values ('run', 'snapshot-0', 'ingest', 'SUCCESS', %s)",
            [shown],
        )
        connection.execute("insert into event_logs (run_id, event, timestamp) values ('run', %s, now())", [shown])
        connection.execute("insert into kvs (key, value) values ('any', %s)", [passwords["loader"]])


def _holding(url: str, words: list[str]) -> list[str]:
    """The columns that hold one of the words, plain or compressed."""
    found = []
    with psycopg.connect(url) as connection:
        for table, column in connection.execute(EVERYTHING.encode()).fetchall():
            for (value,) in connection.execute(f'select "{column}" from "{table}"'.encode()).fetchall():
                text = str(value)
                if isinstance(value, bytes):
                    text = zlib.decompress(value).decode()
                if any(word in text for word in words):
                    found.append(f"{table}.{column}")
    return found


def _takes(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


def test_an_older_folder_gets_new_passwords_and_dagster_holds_none_of_the_old(older: Older) -> None:
    state_dir, words = older.state_dir, list(older.passwords.values())
    assert rotate_secrets(state_dir)
    for name, old in older.passwords.items():
        assert (state_dir / "secrets" / name).read_text().strip() != old
    assert (state_dir / "secrets" / "api_key").exists()

    with started(state_dir) as now:
        assert set(_holding(now.where.dagster_url, words)) == {
            "event_logs.event",
            "kvs.value",
            "runs.run_body",
            "snapshots.snapshot_body",
        }
        found = finish_rotation(state_dir, now.where.dagster_url)
        assert set(found) == {"event_logs", "kvs", "runs", "snapshots"}
        assert (found["kvs"], found["snapshots"]) == (1, 1)
        assert _holding(now.where.dagster_url, words) == []
        with psycopg.connect(now.where.dagster_url) as connection:
            bodies = connection.execute("select snapshot_id, snapshot_body from snapshots order by 1").fetchall()
        texts = {name: json.loads(zlib.decompress(body)) for name, body in bodies}
        assert texts["snapshot-0"]["redis"] == f"redis://:{REDACTED}@127.0.0.1:1/0"
        assert texts["snapshot-1"] == {"harmless": "config"}

        address = now.where.owner_url.rpartition("@")[2]
        for login in ("postgres", "pipeline", "loader", "reader", "analyst", "dagster", "dagster_reader"):
            for word in words:
                assert not _takes(f"postgresql://{login}:{word}@{address}"), login
        # Nothing is lost, and everything has its owner.
        owner = connect(now.where.owner_url)
        assert load_entries(owner, TELEMETRY, entry(1, event())).loaded == 1
        migrate(owner, load_specs().values())
        owner.dispose()
        loader = connect(now.where.loader_url)
        assert load_entries(loader, TELEMETRY, entry(2, event(ts=1_763_712_000_000 - 86_400_000))).loaded == 1
        with loader.connect() as connection_:
            assert connection_.scalar(sa.text("select count(*) from telemetry")) == 4
        loader.dispose()
        with psycopg.connect(now.superuser_url) as connection:
            powers = connection.execute("select rolname::text from pg_roles where rolsuper").fetchall()
            owners = connection.execute(
                "select distinct pg_get_userbyid(relowner)::text from pg_class "
                "where relnamespace = 'public'::regnamespace"
            ).fetchall()
            functions = connection.execute(
                "select pg_get_userbyid(proowner)::text from pg_proc where proname = 'pipeline_ensure_partition'"
            ).fetchall()
        assert (powers, owners, functions) == ([("postgres",)], [("pipeline",)], [("pipeline",)])
        with psycopg.connect(now.where.dagster_url) as connection:
            connection.execute("alter table runs add column mine int")
        assert not rotate_secrets(state_dir)  # once
        assert not (state_dir / "secrets" / "former.json").exists()
    with started(state_dir) as again:  # and an `up` later everything is as it was
        assert _takes(again.where.analyst_url)


def test_a_rotation_that_was_cut_off_is_gone_on_with(older: Older) -> None:
    state_dir, folder = older.state_dir, older.state_dir / "secrets"
    assert rotate_secrets(state_dir)
    # Ended half-way: two files are still the old ones, one is not there.
    for name in ("loader", "postgres"):
        (folder / name).write_text(older.passwords[name] + "\n")
    (folder / "reader").unlink()
    assert rotate_secrets(state_dir)
    kept = {name: (folder / name).read_text() for name in OLD}
    with started(state_dir):
        pass
    assert rotate_secrets(state_dir)  # ended before Dagster's database was cleaned: the passwords stay the new ones
    assert {name: (folder / name).read_text() for name in OLD} == kept
    with started(state_dir) as now:
        finish_rotation(state_dir, now.where.dagster_url)
        assert _holding(now.where.dagster_url, list(older.passwords.values())) == []


def test_valkeys_old_password_is_no_longer_taken(older: Older) -> None:
    rotate_secrets(older.state_dir)
    server = ValkeyServer.prepare(older.state_dir, server_account(), max_memory=VALKEY_MEMORY)
    for _ in running(server.service(), older.state_dir):
        once = Retry(NoBackoff(), 0)
        for user in ("default", "admin", "gateway"):
            stranger = redis.Redis(port=server.port, username=user, password=older.passwords["valkey"], retry=once)
            with stranger, pytest.raises(redis.AuthenticationError):
                stranger.ping()
        with redis.Redis.from_url(server.url()) as client:
            assert client.ping()


def test_a_new_folder_is_left_alone(state_dir: Path) -> None:
    assert not rotate_secrets(state_dir)
    first = secret(state_dir, "postgres")
    assert not rotate_secrets(state_dir)
    assert secret(state_dir, "postgres") == first


def test_a_password_that_is_not_the_servers_is_one_sentence(state_dir: Path) -> None:
    with started(state_dir):
        pass
    (state_dir / "secrets" / "postgres").write_text("another\n")
    with pytest.raises(SettingError, match="put back the file"), started(state_dir):
        pass
