"""Dagster's PostgreSQL storage with one small connection pool a process.

Stock storage opens a connection for almost every statement (a `NullPool` in each of three storages). Here the three
share one pool. A process holds at most `pool_size` connections while idle and `pool_size + max_overflow` while busy,
whatever its number of threads and instances: a thread waits for one up to 30 s, then tries again. The webserver sets
its own overflow, 20 unless `--db-pool-max-overflow` says otherwise. So `max_connections` has to be at least

    (daemon + code servers + workers' parents and children) * (pool_size + max_overflow) + webservers * (pool_size + 20)

though a process with one thread, as a worker's child, uses one or two.
"""

# No postponed annotations here: Dagster reads them at run time.

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import sqlalchemy as sa
from dagster import DagsterRun, Field, IntSource, StringSource
from dagster._config.config_schema import UserConfigSchema
from dagster._core.events.log import EventLogEntry
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.storage.config import pg_config
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.event_log import PostgresEventLogStorage
from dagster_postgres.run_storage import PostgresRunStorage
from dagster_postgres.schedule_storage import PostgresScheduleStorage
from dagster_postgres.utils import create_pg_connection, pg_url_from_config

from pipeline_platform.orchestration.runtime.engines import Pool, end_engine, engine_of, for_webserver, psycopg2_url
from pipeline_platform.orchestration.runtime.who import LAUNCHED_BY, USER_TAG

PURGE_SECONDS = 600.0
TABLES_LOCK = 0x64616773746572  # "dagster"; held while a process looks whether the tables are there


class _Pooled:
    """Gives a storage class the shared engine wherever it reads `_engine`."""

    def __init__(self, pool: Pool, should_autocreate_tables: bool) -> None:
        self._pool = pool
        super().__init__(pool.url, should_autocreate_tables)  # type: ignore[call-arg]

    @property
    def _engine(self) -> sa.Engine:
        return engine_of(self._pool)

    @_engine.setter
    def _engine(self, engine: sa.Engine) -> None:
        """The stock constructor's own engine, dropped: it has not connected yet."""

    def optimize_for_webserver(self, statement_timeout: int, pool_recycle: int, max_overflow: int) -> None:
        """Each of the three asks for the same, so they go on sharing one engine."""
        end_engine(self._pool)
        self._pool = for_webserver(self._pool, statement_timeout, pool_recycle, max_overflow)


class _Remembering:
    """Remembers what is there: what a migration has made stays, so nobody need ask the server's catalog at every tick.

    Only "yes" is remembered, so that a migration meanwhile is seen.
    """

    def _known(self, what: str, look: Callable[[], bool]) -> bool:
        seen: set[str] = self.__dict__.setdefault("_seen", set())
        if what not in seen and look():
            seen.add(what)
        return what in seen

    def has_built_index(self, migration_name: str) -> bool:
        look = super().has_built_index  # type: ignore[misc]
        return self._known(f"index {migration_name}", lambda: look(migration_name))


class PooledRunStorage(_Remembering, _Pooled, PostgresRunStorage):  # type: ignore[misc]
    """Runs, on the shared pool. One that a person launches says who that is."""

    def add_run(self, dagster_run: DagsterRun) -> DagsterRun:
        """Whatever the request itself put into the tag of the user is overwritten."""
        who = LAUNCHED_BY.get()
        run = dagster_run.with_tags({**dagster_run.tags, USER_TAG: who}) if who else dagster_run
        return cast(DagsterRun, super().add_run(run))


class PooledScheduleStorage(_Remembering, _Pooled, PostgresScheduleStorage):  # type: ignore[misc]
    """Schedules, sensors and their ticks, on the shared pool."""

    def _has_instigators_table(self, conn: sa.Connection) -> bool:
        return self._known("instigators", lambda: super(PooledScheduleStorage, self)._has_instigators_table(conn))

    def has_instigators_table(self) -> bool:
        return self._known("instigators", super().has_instigators_table)

    def purge_ticks(
        self, origin_id: str, selector_id: str, before: float, tick_statuses: Sequence[TickStatus] | None = None
    ) -> None:
        """Old ticks go now and then: stock deletes after each tick, mostly nothing."""
        last: dict[tuple[str, ...], float] = self.__dict__.setdefault("_purged", {})
        key = (selector_id, *(status.value for status in tick_statuses or ()))
        if time.monotonic() - last.get(key, -PURGE_SECONDS) >= PURGE_SECONDS:
            super().purge_ticks(origin_id, selector_id, before, tick_statuses)
            last[key] = time.monotonic()


class PooledEventLogStorage(_Pooled, PostgresEventLogStorage):  # type: ignore[misc]
    """Events, on the shared pool."""

    def store_event(self, event: EventLogEntry) -> None:
        """As any SQL storage does, without the NOTIFY that the PostgreSQL one keeps for older versions of Dagster.

        Nothing listens to it: the UI's live log polls (`SqlPollingEventWatcher`).
        """
        super(PostgresEventLogStorage, self).store_event(event)


class PooledPostgresStorage(DagsterPostgresStorage):  # type: ignore[misc]
    """Use it in dagster.yaml under `storage: custom:`; `config` is the stock one plus the fields of the pool."""

    def __init__(
        self,
        pool: Pool,
        should_autocreate_tables: bool = True,
        inst_data: ConfigurableClassData | None = None,
    ) -> None:
        if pool.limit < 2:
            raise ValueError("Dagster needs two connections a process: raise pool_size or max_overflow.")
        self.postgres_url = pool.url
        self.should_autocreate_tables = should_autocreate_tables
        self._inst_data = inst_data
        with _tables_lock(pool, should_autocreate_tables):
            self._run_storage = PooledRunStorage(pool, should_autocreate_tables)
            self._event_log_storage = PooledEventLogStorage(pool, should_autocreate_tables)
            self._schedule_storage = PooledScheduleStorage(pool, should_autocreate_tables)
        super(DagsterPostgresStorage, self).__init__()  # not the stock constructor: it makes stock storages

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """The stock fields without `auth_provider`, and the pool's."""
        stock = cast(dict[str, Any], pg_config())
        return {
            **{name: kind for name, kind in stock.items() if name != "auth_provider"},
            "pool_size": Field(IntSource, is_required=False, default_value=2),
            "max_overflow": Field(IntSource, is_required=False, default_value=8),
            "application_name": Field(StringSource, is_required=False),
        }

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> "PooledPostgresStorage":
        """Called by Dagster with the resolved `config`."""
        pool = Pool(
            psycopg2_url(pg_url_from_config(config_value)),
            config_value["pool_size"],
            config_value["max_overflow"],
            config_value.get("application_name"),
        )
        return cls(pool, config_value.get("should_autocreate_tables", True), inst_data)


@contextmanager
def _tables_lock(pool: Pool, wanted: bool) -> Iterator[None]:
    """Lets one process at a time make the tables: stock processes that start together on an empty database collide."""
    if not wanted:
        yield
        return
    with create_pg_connection(engine_of(pool)) as connection:
        connection.execution_options(isolation_level="READ COMMITTED")
        with connection.begin():  # ends the lock, also behind a pooler that shares sessions
            connection.execute(sa.text("select pg_advisory_xact_lock(:key)"), {"key": TABLES_LOCK})
            yield
