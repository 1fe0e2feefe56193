"""Connections to the warehouse, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa

from pipeline_platform.errors import PermanentError, TransientError, WarehouseUnavailableError

# SQLSTATE classes and codes that a later attempt may get past.
_TRANSIENT_CLASSES = ("08", "53", "57", "58")  # connection, resources, operator intervention, system
_TRANSIENT_CODES = ("40001", "40P01", "55P03", "55006")  # serialization, deadlock, lock timeout, object in use


def connect(url: str, *, pool_size: int = 2, application: str = "pipeline-platform") -> sa.Engine:
    """An engine on psycopg 3 for any `postgresql://` URL, with at most `pool_size` + 2 connections."""
    parsed = sa.make_url(url).set(drivername="postgresql+psycopg")
    options = " ".join(["-c timezone=UTC", *parsed.normalized_query.get("options", ())])
    return sa.create_engine(
        parsed,
        pool_size=pool_size,
        max_overflow=2,
        pool_pre_ping=True,
        pool_timeout=15,
        connect_args={"connect_timeout": 10, "application_name": application, "options": options},
    )


def is_transient(error: BaseException) -> bool:
    """Whether a database error may go away by itself."""
    original = getattr(error, "orig", error)
    state = getattr(original, "sqlstate", None)
    if state is None:
        return isinstance(original, psycopg.OperationalError | psycopg.InterfaceError) or isinstance(
            error, sa.exc.TimeoutError
        )
    return state[:2] in _TRANSIENT_CLASSES or state in _TRANSIENT_CODES


@contextmanager
def warehouse_errors() -> Iterator[None]:
    """The driver's errors as WarehouseUnavailableError, TransientError or PermanentError, without SQL or parameters."""
    try:
        yield
    except (sa.exc.DBAPIError, sa.exc.TimeoutError, psycopg.Error) as error:
        original = getattr(error, "orig", error)
        state = getattr(original, "sqlstate", None)
        lines = str(original).strip().splitlines()
        message = lines[0][:200] if lines else type(original).__name__
        if is_transient(error) if state is None else state.startswith(("08", "57P")):
            raise WarehouseUnavailableError("The warehouse cannot be reached.") from error
        raise (TransientError if is_transient(error) else PermanentError)(
            f"The warehouse refused ({state or type(original).__name__}): {message}"
        ) from error
