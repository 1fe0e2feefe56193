"""Pooled storage: one small pool a process, whatever happens to the process or to the server."""

# No postponed annotations here: Dagster reads them at run time.

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
import sqlalchemy as sa
import yaml
from dagster._core.events.log import EventLogEntry
from dagster._core.scheduler.instigation import TickStatus

from pipeline_platform.orchestration.runtime.engines import Pool, end_engine, engine_of, psycopg2_url
from pipeline_platform.orchestration.runtime.storage import PooledPostgresStorage

NAME = "pooled-test"
BACKENDS = "select pid from pg_stat_activity where application_name = %s"
TERMINATE = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where application_name = %s"


@dg.op
def number() -> int:
    return 1


@dg.op
def passed_on(value: int) -> int:
    return value


@dg.job(executor_def=dg.in_process_executor, resource_defs={"io_manager": dg.mem_io_manager})
def two_ops() -> None:
    passed_on(number())


@pytest.fixture
def pool(database_url: str) -> Iterator[Pool]:
    with_options = sa.make_url(database_url).update_query_dict({"options": "-c synchronous_commit=off"})
    pool = Pool(psycopg2_url(with_options.render_as_string(hide_password=False)), 2, 4, NAME)
    yield pool
    end_engine(pool)


@pytest.fixture
def storage(pool: Pool) -> PooledPostgresStorage:
    return PooledPostgresStorage(pool)


def backends(url: str) -> set[int]:
    """The server's processes that serve our pools."""
    with psycopg.connect(url) as connection:
        return {pid for (pid,) in connection.execute(BACKENDS, [NAME])}


def show(pool: Pool, setting: str) -> Any:
    with engine_of(pool).connect() as connection:
        return connection.execute(sa.text(f"show {setting}")).scalar()


def in_a_program_that_forks(what: str, url: str) -> None:
    """Forking pytest's own process would take along what other tests left in it."""
    command = [sys.executable, "-m", "pipeline_platform_tests.integration.forking", what, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_runs_from_dagster_yaml(database_url: str, tmp_path: Path) -> None:
    config = {"postgres_url": database_url, "pool_size": 1, "max_overflow": 3, "application_name": NAME}
    custom = {"module": PooledPostgresStorage.__module__, "class": PooledPostgresStorage.__name__, "config": config}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"custom": custom}}))
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        result = two_ops.execute_in_process(instance=instance)
        assert result.success
        assert instance.get_run_by_id(result.run_id).status == dg.DagsterRunStatus.SUCCESS  # type: ignore[union-attr]
        with dg.DagsterInstance.from_ref(instance.get_ref()) as again:  # as a worker gets it
            assert again.get_runs_count() == 1
    assert len(backends(database_url)) == 1
    end_engine(Pool(psycopg2_url(database_url), 1, 3, NAME))
    assert backends(database_url) == set()


def test_makes_the_tables_once_when_many_start_together(database_url: str) -> None:
    in_a_program_that_forks("tables", database_url)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select count(*) from alembic_version").fetchone() == (1,)
        indexes = connection.execute("select count(*), count(distinct name) from secondary_indexes").fetchone()
    assert indexes is not None
    assert indexes[0] == indexes[1] > 0


def test_many_threads_share_a_bounded_pool(storage: PooledPostgresStorage, pool: Pool, database_url: str) -> None:
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while not done.is_set():
                seen.append(len(connection.execute(BACKENDS, [NAME]).fetchall()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(20) as threads:
        for _ in threads.map(lambda _: storage.run_storage.get_runs_count(), range(400)):
            pass
    done.set()
    watcher.join()
    assert max(seen) <= pool.limit == 6
    assert len(backends(database_url)) <= pool.size


def test_a_forked_child_opens_its_own_and_leaves_the_parents_alone(database_url: str) -> None:
    in_a_program_that_forks("sockets", database_url)


def test_a_closed_connection_is_never_used(storage: PooledPostgresStorage, database_url: str) -> None:
    storage.run_storage.get_runs_count()
    for _ in range(3):
        with psycopg.connect(database_url) as connection:
            connection.execute(TERMINATE, [NAME])
        assert storage.run_storage.get_runs_count() == 0


def test_waits_for_a_server_that_is_away(storage: PooledPostgresStorage, database_url: str) -> None:
    name = sa.make_url(database_url).database
    admin = sa.make_url(database_url).set(database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(admin, autocommit=True) as connection, ThreadPoolExecutor(1) as thread:
        connection.execute(f'alter database "{name}" allow_connections false')
        connection.execute(TERMINATE, [NAME])
        waiting = thread.submit(storage.run_storage.get_runs_count)
        time.sleep(1)
        assert not waiting.done()
        connection.execute(f'alter database "{name}" allow_connections true')
        assert waiting.result(30) == 0


def test_keeps_the_urls_options_also_for_the_webserver(storage: PooledPostgresStorage, pool: Pool) -> None:
    assert show(pool, "synchronous_commit") == "off"
    for part in (storage.schedule_storage, storage.run_storage, storage.event_log_storage):
        part.optimize_for_webserver(statement_timeout=15_000, pool_recycle=3600, max_overflow=20)
    engines = {id(part._engine) for part in (storage.schedule_storage, storage.run_storage, storage.event_log_storage)}
    assert len(engines) == 1
    webserver = storage.run_storage._pool
    assert webserver.limit == 22
    assert show(webserver, "synchronous_commit") == "off"
    assert show(webserver, "statement_timeout") == "15s"
    end_engine(webserver)


def test_live_log_is_told_of_events(storage: PooledPostgresStorage) -> None:
    told: list[str] = []
    enough = threading.Event()

    def on_event(entry: EventLogEntry, cursor: str) -> None:
        told.append(entry.user_message)
        enough.set()

    storage.event_log_storage.watch("a-run", None, on_event)
    entry = EventLogEntry(None, 10, "hello", "a-run", time.time())  # type: ignore[no-untyped-call]
    storage.event_log_storage.store_event(entry)
    assert enough.wait(20)
    assert told == ["hello"]
    storage.event_log_storage.dispose()


def test_names_psycopg2_and_refuses_a_pool_too_small(pool: Pool) -> None:
    assert psycopg2_url("postgresql://a:p%40ss@host/db?options=-c%20x%3Dy").startswith(
        "postgresql+psycopg2://a:p%40ss@"
    )
    assert psycopg2_url("postgresql+psycopg2://a@host/db") == "postgresql+psycopg2://a@host/db"
    with pytest.raises(ValueError, match="raise pool_size"):
        PooledPostgresStorage(Pool(pool.url, 1, 0))


def test_the_catalog_is_asked_once_and_old_ticks_are_purged_now_and_then(storage: PooledPostgresStorage) -> None:
    schedules = storage.schedule_storage
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    states = ("origin", "selector", time.time(), [TickStatus.SKIPPED])
    schedules.all_instigator_state()
    schedules.purge_ticks(*states)
    sa.event.listen(schedules._engine, "before_cursor_execute", note)
    try:
        for _ in range(3):
            assert schedules.all_instigator_state() == []
            schedules.purge_ticks(*states)
    finally:
        sa.event.remove(schedules._engine, "before_cursor_execute", note)
    assert len(statements) == 3, statements
    assert not [statement for statement in statements if "pg_catalog" in statement or "DELETE" in statement]
