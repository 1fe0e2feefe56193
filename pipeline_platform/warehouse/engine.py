"""Connections to the warehouse, and its errors as ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import psycopg
import sqlalchemy as sa

from pipeline_platform.core.failures import FailureKind, of_sqlstate
from pipeline_platform.errors import (
    PermanentError,
    PoisonError,
    TransientError,
    WarehouseUnavailableError,
    interrupt_behind,
)
from pipeline_platform.warehouse.interruptible import Connection

_ERRORS = {
    FailureKind.TRANSIENT: TransientError,
    FailureKind.POISON: PoisonError,
    FailureKind.PERMANENT: PermanentError,
}


# Both sides notice within half a minute that the other's machine is gone: a run does not wait for a server that is no
# more, and a lost host's transaction does not hold its batch's lock for the two hours of TCP's own patience.
KEEPALIVE = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}
SERVER_KEEPALIVE = {f"tcp_{name.removeprefix('tcp_')}": value for name, value in KEEPALIVE.items()}


# What a reading connection says itself: a login may change its own settings, and they would stay.
READING = {
    "search_path": "public",
    "default_transaction_read_only": "on",
    "default_transaction_isolation": r"read\ committed",
    "statement_timeout": "30s",
    "idle_in_transaction_session_timeout": "60s",
    "datestyle": "ISO",
    "local_preload_libraries": "",
}


def connect(
    url: str,
    *,
    pool_size: int = 2,
    application: str = "pipeline-platform",
    settings: Mapping[str, str] = MappingProxyType({}),
) -> sa.Engine:
    """An engine on psycopg 3 for any `postgresql://` URL, with at most `pool_size` + 2 connections.

    `settings` hold whatever the server keeps for the login; the URL's own `options` hold before them.
    """
    parsed = sa.make_url(url).set(drivername="postgresql+psycopg")
    said = [f"-c {name}={value}" for name, value in {**SERVER_KEEPALIVE, **settings}.items()]
    options = " ".join(["-c timezone=UTC", *said, *parsed.normalized_query.get("options", ())])
    engine = sa.create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=2,
        pool_pre_ping=True,
        pool_timeout=15,
        connect_args={"connect_timeout": 10, "application_name": application, "options": options, **KEEPALIVE},
    )

    @sa.event.listens_for(engine, "do_connect")
    def open_connection(_dialect: Any, _record: Any, args: Any, named: Any) -> Connection:
        return Connection.connect(*args, **named)

    return engine


def kind_of(error: BaseException) -> FailureKind:
    """The kind of an error of the driver or of SQLAlchemy."""
    original = getattr(error, "orig", error)
    state = getattr(original, "sqlstate", None)
    if state is not None:
        return of_sqlstate(state, _hint(original))
    away = isinstance(original, psycopg.OperationalError | psycopg.InterfaceError)
    if away or isinstance(error, sa.exc.TimeoutError):
        return FailureKind.TRANSIENT
    # Without a code it comes from the driver: a value that it cannot send, or a mistake of ours.
    return FailureKind.POISON if isinstance(original, psycopg.DataError) else FailureKind.PERMANENT


@contextmanager
def warehouse_errors() -> Iterator[None]:
    """The driver's errors as Transient-, Poison- or PermanentError, without SQL or parameters.

    WarehouseUnavailableError, which is a TransientError, when nobody answers. An interrupt stays what it is.
    """
    before = sys.exception()
    try:
        yield
    except BaseException as error:
        if (interrupt := interrupt_behind(error, before)) not in (None, error):
            raise interrupt from None
        if not isinstance(error, sa.exc.DBAPIError | sa.exc.TimeoutError | psycopg.Error):
            raise
        raise _ours(error) from error


def _ours(error: Exception) -> Exception:
    original = getattr(error, "orig", error)
    state = getattr(original, "sqlstate", None)
    lines = str(original).strip().splitlines()
    message = lines[0][:200] if lines else type(original).__name__
    kind = kind_of(error)
    if kind is FailureKind.TRANSIENT and (state is None or state.startswith(("08", "57P"))):
        return WarehouseUnavailableError("The warehouse cannot be reached.")
    advice = f" {_hint(original)}" if kind is FailureKind.PERMANENT and (state or "").startswith("53") else ""
    return _ERRORS[kind](f"The warehouse refused ({state or type(original).__name__}): {message}{advice}")


def _hint(error: object) -> str:
    return (error.diag.message_hint or "") if isinstance(error, psycopg.Error) else ""
