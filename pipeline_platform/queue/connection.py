"""One way to connect to a Redis-protocol server, and its errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline_platform.core.failures import FailureKind, of_redis_error
from pipeline_platform.errors import QueueFullError, QueueRefusedError, QueueUnavailableError

# redis-py takes the code off the messages of these; the others keep theirs.
_PASSING = (
    redis.exceptions.ReadOnlyError,
    redis.exceptions.TryAgainError,
    redis.exceptions.ClusterDownError,
    redis.exceptions.MasterDownError,
)


def connect(url: str, *, timeout: float = 10.0, connections: int = 16) -> redis.Redis:
    """A client for `url`. No retries inside: an append that is repeated blindly could be there twice."""
    return redis.Redis.from_url(
        url,
        protocol=2,
        socket_timeout=timeout,
        socket_connect_timeout=min(timeout, 5.0),
        health_check_interval=0,
        max_connections=connections,
        retry=Retry(NoBackoff(), 0),
    )


@contextmanager
def queue_errors() -> Iterator[None]:
    """Redis's errors as QueueUnavailable-, QueueFull- or QueueRefusedError; their messages never hold the URL."""
    try:
        yield
    except redis.exceptions.OutOfMemoryError as error:
        raise QueueFullError("The queue's memory is full; consumers have to catch up first.") from error
    except (redis.exceptions.AuthenticationError, redis.exceptions.AuthorizationError) as error:
        raise QueueRefusedError(_refused(error)) from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise QueueUnavailableError("The queue's server cannot be reached.") from error
    except _PASSING as error:
        raise QueueUnavailableError(_refused(error)) from error
    except redis.exceptions.ResponseError as error:
        passing = of_redis_error(str(error)) is FailureKind.TRANSIENT
        raise (QueueUnavailableError if passing else QueueRefusedError)(_refused(error)) from error


def _refused(error: Exception) -> str:
    return f"The queue's server refused: {str(error)[:120]}"
