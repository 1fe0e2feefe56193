"""kill -9 of every part of the stack."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

import psycopg

from pipeline_platform_tests.faults.stand import Stand

# A client's own process at the server; killing it makes PostgreSQL throw everybody out and recover from its log.
BACKENDS = (
    "select pid from pg_stat_activity where backend_type = 'client backend' and application_name <> 'fault suite' "
    "and datname = 'warehouse' order by (state = 'active') desc, random()"
)


def service(name: str) -> Callable[[Stand], None]:
    """kill -9 of a service's own process: of the worker its parent, of PostgreSQL the postmaster."""

    def strike(stand: Stand) -> None:
        os.kill(stand.pid(name), signal.SIGKILL)

    return strike


def worker_child(stand: Stand) -> None:
    """kill -9 of a process that executes runs."""
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        children = stand.children(stand.pid("worker"))
        if children:
            os.kill(children[-1], signal.SIGKILL)
            return
        time.sleep(0.1)
    raise AssertionError("the worker has no children")


def postgres_backend(stand: Stand) -> None:
    """kill -9 of a backend, one that is at work where there is one."""
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        try:
            with stand.database() as connection:
                row = connection.execute(BACKENDS).fetchone()
        except psycopg.Error:
            row = None
        if row is not None:
            os.kill(int(str(row[0])), signal.SIGKILL)
            return
        time.sleep(0.1)
    raise AssertionError("PostgreSQL has no backend to kill")


KILLS: dict[str, Callable[[Stand], None]] = {
    "a worker's child": worker_child,
    "the ingest worker": service("worker"),
    "the other worker": service("etl"),
    "the gateway": service("gateway"),
    "Valkey": service("valkey"),
    "a PostgreSQL backend": postgres_backend,
    "the PostgreSQL postmaster": service("postgres"),
    "the daemon": service("daemon"),
    "the code server": service("code"),
    "the webserver": service("dagster"),
}
