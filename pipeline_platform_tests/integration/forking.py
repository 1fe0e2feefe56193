"""Pooled storage in forked children, run as a program of its own: pytest's process has threads by then.

python -m pipeline_platform_tests.integration.forking tables|sockets DATABASE_URL
"""

# No postponed annotations here: Dagster reads them at run time.

import os
import sys
import traceback
from collections.abc import Callable

import psycopg
import sqlalchemy as sa

from pipeline_platform.orchestration.runtime.engines import Pool, engine_of, psycopg2_url
from pipeline_platform.orchestration.runtime.storage import PooledPostgresStorage

NAME = "pooled-test"
BACKENDS = "select pid from pg_stat_activity where application_name = %s"


def in_children(count: int, work: Callable[[], object]) -> None:
    """Forks `count` children that all do the work; ends the program when one of them fails."""
    children = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            try:
                work()
            except BaseException:  # noqa: BLE001  whatever it is, the exit code tells
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(pid)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    if any(codes):
        raise SystemExit(f"children ended with {codes}")


def backends(url: str) -> set[int]:
    """The server's processes that serve our pools."""
    with psycopg.connect(url) as connection:
        return {pid for (pid,) in connection.execute(BACKENDS, [NAME])}


def tables(url: str, pool: Pool) -> None:
    """Six processes start together on an empty database."""
    in_children(6, lambda: PooledPostgresStorage(pool))


def sockets(url: str, pool: Pool) -> None:
    """Children open connections of their own and leave the parent's alone."""
    storage = PooledPostgresStorage(pool)
    storage.run_storage.get_runs_count()
    before = backends(url)

    def child() -> None:
        storage.run_storage.get_runs_count()
        with engine_of(pool).connect() as connection:
            assert connection.execute(sa.text("select pg_backend_pid()")).scalar() not in before

    in_children(2, child)
    assert storage.run_storage.get_runs_count() == 0
    assert backends(url) == before, (backends(url), before)


if __name__ == "__main__":
    {"tables": tables, "sockets": sockets}[sys.argv[1]](sys.argv[2], Pool(psycopg2_url(sys.argv[2]), 2, 4, NAME))
