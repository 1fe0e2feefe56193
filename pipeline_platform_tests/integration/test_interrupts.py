"""What is no Exception is never told as an error of a server, and nobody gets the connection that it interrupted."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from dagster._core.errors import DagsterExecutionInterruptedError

from pipeline_platform.errors import WarehouseUnavailableError
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.connection import queue_errors
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform_tests.integration.runtime_worker_kit import wait_until

INTERRUPTS = (DagsterExecutionInterruptedError, KeyboardInterrupt, SystemExit, GeneratorExit)
BUSY = """
select pid from pg_stat_activity
where datname = current_database() and application_name = 'pipeline-platform' and wait_event = 'PgSleep'
"""
Work = Callable[[sa.Connection], object]


def statement(connection: sa.Connection) -> None:
    connection.execute(sa.text("select pg_sleep(66)"))


def cursor(connection: sa.Connection) -> None:
    connection.connection.cursor().execute("select pg_sleep(66)")


def after_another(connection: sa.Connection) -> None:
    connection.execute(sa.text("create temp table t (a int)"))
    connection.connection.cursor().execute("select pg_sleep(66)")


def streamed(connection: sa.Connection) -> None:
    list(raw(connection).cursor().stream("select pg_sleep(66)"))


def copy_out(connection: sa.Connection) -> None:
    with raw(connection).cursor() as cursor, cursor.copy("copy (select pg_sleep(66)) to stdout") as copy:
        copy.read()


def copy_in(connection: sa.Connection) -> None:
    """The default of a row is what takes so long: the driver waits where the COPY ends."""
    connection.execute(sa.text("create temp table slow (a int, b text default pg_sleep(66)::text)"))
    with raw(connection).cursor() as cursor, cursor.copy("copy slow (a) from stdin") as copy:
        copy.write_row((1,))


def caught(connection: sa.Connection) -> None:
    """An error of the clean-up hides what ended the work, as deep as a library likes."""
    try:
        statement(connection)
    finally:
        try:
            connection.execute(sa.text("select 1"))
        except sa.exc.DBAPIError as error:
            raise sa.exc.OperationalError("x", {}, error.__cause__ or error) from error


def raw(connection: sa.Connection) -> Any:
    return connection.connection.driver_connection


@pytest.fixture
def interrupted(engine: sa.Engine) -> Iterator[Callable[[type[BaseException]], None]]:
    """Tells what SIGUSR1 raises; it comes as soon as the server sleeps."""
    before, over = signal.getsignal(signal.SIGUSR1), threading.Event()
    found: list[int] = []

    def send() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not found and not over.is_set():
                found.extend(connection.execute(sa.text(BUSY)).scalars())
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=send)

    def prepare(kind: type[BaseException]) -> None:
        def handle(*_: object) -> None:
            raise kind

        signal.signal(signal.SIGUSR1, handle)
        thread.start()

    yield prepare
    over.set()
    thread.join()
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.parametrize("kind", INTERRUPTS)
@pytest.mark.parametrize("work", [statement, cursor, after_another, streamed, copy_out, copy_in, caught])
def test_an_interrupt_in_the_warehouse(
    engine: sa.Engine, interrupted: Callable[[type[BaseException]], None], work: Work, kind: type[BaseException]
) -> None:
    interrupted(kind)
    used, pid = _ended(engine, kind, work)
    assert used.closed
    gone = sa.text("select count(*) = 0 from pg_stat_activity where pid = :pid")
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        wait_until("the server has stopped", lambda: bool(connection.scalar(gone, {"pid": pid})))


@pytest.mark.parametrize("kind", INTERRUPTS)
def test_an_interrupt_between_the_driver_s_steps_leaves_no_busy_connection(
    engine: sa.Engine, kind: type[BaseException]
) -> None:

    def before_waiting(connection: sa.Connection) -> None:
        raw(connection).pgconn.send_query(b"select pg_sleep(66)")
        raise kind

    def between_rows(connection: sa.Connection) -> None:
        connection.execute(sa.text("create temp table t (a int)"))
        with raw(connection).cursor() as cursor, cursor.copy("copy t from stdin") as copy:
            copy.write_row((1,))
            raise kind

    assert _ended(engine, kind, before_waiting)[0].closed
    _ended(engine, kind, between_rows)
    with engine.connect() as connection:
        assert connection.scalar(sa.text("select 1")) == 1


def _ended(engine: sa.Engine, kind: type[BaseException], work: Work) -> tuple[Any, int]:
    """The driver's connection, and its process in the server, of work that ended in `kind` and in nothing else."""
    used: list[Any] = []

    def act() -> None:
        with warehouse_errors(), engine.begin() as connection:
            used.extend((raw(connection), raw(connection).info.backend_pid))
            work(connection)

    with pytest.raises(kind):
        act()
    return used[0], used[1]


def test_an_outage_after_an_interrupt_that_was_handled_is_an_outage(engine: sa.Engine) -> None:
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with pytest.raises(WarehouseUnavailableError), warehouse_errors(), engine.begin() as connection:
            connection.execute(sa.text("select pg_terminate_backend(pg_backend_pid())"))


@pytest.mark.parametrize("kind", INTERRUPTS)
def test_an_interrupt_in_the_queue_leaves_no_answer_to_somebody_else(redis_url: str, kind: type[BaseException]) -> None:
    client = connect_queue(redis_url)
    client.ping()

    def before_the_answer() -> None:
        connection: Any = client.connection_pool.get_connection()
        try:
            connection.send_command("ECHO", "somebody else's")
            raise kind
        finally:
            client.connection_pool.release(connection)

    def clean_up_fails() -> None:
        try:
            raise kind
        finally:
            connect_queue("redis://127.0.0.1:1").ping()

    for work in (before_the_answer, clean_up_fails):
        with pytest.raises(kind), queue_errors():
            work()
        assert client.echo("mine") == b"mine"
    client.close()


def test_an_interrupt_while_the_queue_is_waited_for(redis_url: str) -> None:
    client, other = connect_queue(redis_url), connect_queue(redis_url)

    def handle(*_: object) -> None:
        raise DagsterExecutionInterruptedError

    def waits() -> bool:
        return any(each["cmd"] == "blpop" for each in other.client_list())

    def send() -> None:
        wait_until("it waits", waits)
        os.kill(os.getpid(), signal.SIGUSR1)

    before, thread = signal.signal(signal.SIGUSR1, handle), threading.Thread(target=send)
    thread.start()
    with pytest.raises(DagsterExecutionInterruptedError), queue_errors():
        client.blpop("nothing", 9)
    thread.join()
    signal.signal(signal.SIGUSR1, before)
    wait_until("the server has let go of it", lambda: not waits())
    assert client.echo("mine") == b"mine"
    client.close()
    other.close()
