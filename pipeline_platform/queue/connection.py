"""One way to connect to a Redis-protocol server, and its errors as ours."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline_platform.core.failures import FailureKind, of_redis_error
from pipeline_platform.errors import QueueFullError, QueueRefusedError, QueueUnavailableError, interrupt_behind

# redis-py takes the code off the messages of these; the others keep theirs.
_PASSING = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
)
_KNOWN = (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, redis.exceptions.ResponseError, OSError)


class _Connections(redis.ConnectionPool):
    """The client's pool, except that nobody gets a connection whose command was interrupted: its answer is to come."""

    def release(self, connection: Any) -> None:
        error = sys.exception()
        if error is not None and not isinstance(error, Exception):
            connection.disconnect()
        super().release(connection)


def connect(url: str, *, timeout: float = 10.0, connections: int = 16) -> redis.Redis:
    """A client for `url`. No retries inside: an append that is repeated blindly could be there twice."""
    pool = _Connections.from_url(
        url,
        protocol=2,
        socket_timeout=timeout,
        socket_connect_timeout=min(timeout, 5.0),
        health_check_interval=0,
        max_connections=connections,
        retry=Retry(NoBackoff(), 0),
    )
    return redis.Redis.from_pool(pool)


@contextmanager
def queue_errors() -> Iterator[None]:
    """Redis's errors as QueueUnavailable-, QueueFull- or QueueRefusedError; their messages never hold the URL.

    An interrupt stays what it is.
    """
    before = sys.exception()
    try:
        yield
    except _KNOWN as error:
        if (interrupt := interrupt_behind(error, before)) is not None:
            raise interrupt from None
        raise _ours(error) from error


def _ours(error: Exception) -> Exception:
    if isinstance(error, redis.exceptions.OutOfMemoryError):
        return QueueFullError("The queue's memory is full; consumers have to catch up first.")
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.AuthorizationError):
        return QueueRefusedError(_refused(error))
    if isinstance(error, redis.exceptions.ConnectionError | redis.exceptions.TimeoutError | OSError):
        return QueueUnavailableError("The queue's server cannot be reached.")
    passing = isinstance(error, _PASSING) or of_redis_error(str(error)) is FailureKind.TRANSIENT
    return (QueueUnavailableError if passing else QueueRefusedError)(_refused(error))


def _refused(error: Exception) -> str:
    return f"The queue's server refused: {str(error)[:120]}"
