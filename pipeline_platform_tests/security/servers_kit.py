"""The embedded PostgreSQL with a migrated warehouse and every login, made by the steps of `up` itself."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import psycopg

from pipeline_platform.core.streams import load_specs
from pipeline_platform.local.processes import Service, Step
from pipeline_platform.local.servers import Database, database
from pipeline_platform.local.supervisor import Supervisor
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.conftest import make_state_dir

# What Dagster would have made by the time that a stack is up.
DAGSTERS_TABLES = """
create table if not exists daemon_heartbeats (body text);
create table if not exists job_ticks (tick_body text);
create table if not exists runs (run_body text);
"""


@dataclass(frozen=True)
class Running:
    """A server that is up, its state folder, and the URLs of its logins."""

    state_dir: Path
    where: Database
    superuser_url: str

    def again(self) -> None:
        """What another `up` does to the logins."""
        run_steps(self.where.before)
        run_steps(self.where.after)

    def url(self, login: str, name: str = "warehouse") -> str:
        """A login's URL, of any database."""
        by_login = {
            "owner": self.where.owner_url,
            "loader": self.where.loader_url,
            "reader": self.where.reader_url,
            "analyst": self.where.analyst_url,
            "dagster": self.where.dagster_url,
            "dagster_reader": self.where.dagster_reader_url,
            "superuser": self.superuser_url,
        }
        return f"{by_login[login].rpartition('/')[0]}/{name}"


@contextmanager
def running_database() -> Iterator[Running]:
    """Starts it in a folder of its own, removed afterwards."""
    state_dir = make_state_dir()
    with started(state_dir) as running:
        yield running
    shutil.rmtree(state_dir.parent)


@contextmanager
def started(state_dir: Path) -> Iterator[Running]:
    """Starts the database of a state folder, migrates it and settles its logins, as `up` does."""
    where = database(Settings(state_dir=state_dir, database_url=None), state_dir)
    services = [item for item in where.before if isinstance(item, Service)]
    # The tests of what is kept are elsewhere; these need not wait for the disk.
    services = [replace(each, argv=[*each.argv, "-c", "fsync=off"]) for each in services]
    supervisor = Supervisor(services, lambda name, line: None, state_dir)
    supervisor.start()
    try:
        run_steps(where.before)
        engine = connect(where.owner_url)
        migrate(engine, load_specs().values())
        engine.dispose()
        with psycopg.connect(where.dagster_url) as connection:
            connection.execute(DAGSTERS_TABLES)
        run_steps(where.after)
        password = (state_dir / "secrets" / "postgres").read_text().strip()
        address = where.owner_url.rpartition("@")[2]
        yield Running(state_dir, where, f"postgresql://postgres:{password}@{address}")
    finally:
        supervisor.stop()


def run_steps(plan: tuple[Service | Step, ...]) -> None:
    """Runs the steps of a plan whose services are up."""
    for item in plan:
        if isinstance(item, Step):
            item.run()
