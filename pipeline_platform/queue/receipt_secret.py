"""The secret that all gateways sign receipts with: made once by whichever comes first, kept beside the queue."""

from __future__ import annotations

import secrets
from typing import Any

import redis

from pipeline_platform.queue.connection import queue_errors

RECEIPT_SECRET = "pp:receipt-secret"


class ReceiptSecret:
    """The secret as this process knows it."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self.value: bytes | None = None

    def load(self) -> bytes:
        """The secret that counts, blocking; a server that has lost it gets ours. Raises QueueUnavailableError."""
        mine = self.value or secrets.token_bytes(32)
        with queue_errors():
            self._redis.setnx(RECEIPT_SECRET, mine)
            found: Any = self._redis.get(RECEIPT_SECRET)
        self.value = bytes(found or mine)
        return self.value
