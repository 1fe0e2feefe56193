"""When each API key was last used, to the minute: noted in memory, written now and then.

A hash of its own, `pp:key-used`, from a key's id to epoch seconds: a server that only checks keys may write it, and
need not be able to write the keys.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import redis

from pipeline_platform.core.windows import to_datetime
from pipeline_platform.errors import PlatformError
from pipeline_platform.queue.connection import queue_errors

KEY_USED = "pp:key-used"
GRAIN_SECONDS = 60


class KeyUses:
    """The uses that one server has seen. `note` costs next to nothing; what `flush` cannot write it keeps."""

    def __init__(self, client: redis.Redis, *, clock: Callable[[], float] = time.time) -> None:
        self._redis, self._clock = client, clock
        self._written: dict[str, int] = {}
        self._pending: dict[str, int] = {}
        self._lock = threading.Lock()

    def note(self, key_id: str) -> None:
        """The key is good and was used now."""
        minute = int(self._clock()) // GRAIN_SECONDS * GRAIN_SECONDS
        if self._written.get(key_id) != minute:
            with self._lock:
                self._pending[key_id] = minute

    def flush(self) -> int:
        """Writes what is new, blocking; how many keys that were. Raises QueueUnavailableError."""
        with self._lock:
            taken, self._pending = self._pending, {}
        if not taken:
            return 0
        try:
            with queue_errors():
                self._redis.hset(KEY_USED, mapping=dict[Any, Any](taken))
        except PlatformError:
            with self._lock:
                self._pending = taken | self._pending
            raise
        self._written.update(taken)
        return len(taken)


def last_uses(client: redis.Redis) -> dict[str, datetime]:
    """Each key's last use by its id. Raises QueueUnavailableError."""
    with queue_errors():
        found: Any = client.hgetall(KEY_USED)
    return {raw.decode(): to_datetime(int(seconds) * 1_000_000) for raw, seconds in found.items()}
