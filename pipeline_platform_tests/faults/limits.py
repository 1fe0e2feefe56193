"""Servers at their limits: Redis out of memory, PostgreSQL out of connections, deadlocks that are forced."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import redis

from pipeline_platform_tests.faults.stand import Stand


@contextmanager
def out_of_memory(stand: Stand) -> Iterator[None]:
    """Redis has no memory left: every write is answered with OOM."""
    with contextlib.closing(stand.redis()) as client:
        limit = str(client.config_get("maxmemory")["maxmemory"])
        client.config_set("maxmemory", 1)
        try:
            yield
        finally:
            client.config_set("maxmemory", limit)


def is_out_of_memory(stand: Stand) -> bool:
    """Whether Redis refuses a write for want of memory."""
    with contextlib.closing(stand.redis()) as client:
        try:
            client.set("fault-suite", "1", ex=1)
        except redis.exceptions.OutOfMemoryError:
            return True
    return False


@contextmanager
def out_of_connections(stand: Stand) -> Iterator[int]:
    """Idle connections take every place, also those kept for superusers; yields how many they are."""
    held: list[psycopg.Connection[tuple[object, ...]]] = []
    stop = threading.Event()

    def hold() -> None:
        while not stop.is_set():
            try:
                held.append(stand.database())
            except psycopg.Error:
                stop.wait(0.05)  # full; whoever leaves is followed by us

    threads = [threading.Thread(target=hold) for _ in range(4)]
    with stand.database() as connection:
        connection.execute(  # pools are at ease with what they have: they have to ask again
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
    for thread in threads:
        thread.start()
    try:
        full = time.monotonic() + 60
        while time.monotonic() < full and not _refuses(stand):
            time.sleep(0.2)
        assert _refuses(stand), "PostgreSQL still had a connection to give"
        yield len(held)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for connection in held:
            connection.close()


def _refuses(stand: Stand) -> bool:
    try:
        stand.database().close()
    except psycopg.OperationalError as error:
        return "too many clients" in str(error) or "reserved" in str(error)
    return False


def force_deadlocks(stand: Stand, seconds: float, stream: str = "telemetry") -> int:
    """Locks rows of the minutes in the order opposite to the load's, over and over; returns the deadlocks there were.

    PostgreSQL ends whoever notices first, and the one with the shorter deadlock_timeout does: mostly the load.
    """
    before, until = _deadlocks(stand), time.monotonic() + seconds
    for patience in itertools.cycle(("10s", "10s", "200ms")):
        if time.monotonic() > until:
            break
        with contextlib.suppress(psycopg.Error), stand.database() as connection:
            connection.autocommit = False
            connection.execute(f"set local deadlock_timeout = '{patience}'")
            rows = connection.execute(
                f"select series_id, window_start from {stream}_minutes "
                "where window_start > now() - interval '3 minutes' order by series_id desc, window_start desc"
            ).fetchall()
            for series, window in rows:
                connection.execute(
                    f"select 1 from {stream}_minutes where series_id = %s and window_start = %s for update",
                    [series, window],
                )
                time.sleep(0.05)
            connection.rollback()
    return _deadlocks(stand) - before


def _deadlocks(stand: Stand) -> int:
    with stand.database() as connection:
        row = connection.execute("select deadlocks from pg_stat_database where datname = 'warehouse'").fetchone()
    assert row is not None
    return int(str(row[0]))
