"""Receipts as they are given out, and whose they are: answered from the receipt itself, no state for a request."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from pipeline_platform.core.entries import Receipt, TaggedReceipt
from pipeline_platform.queue.keys import Key
from pipeline_platform.queue.receipt_secret import ReceiptSecret

REFRESH_SECONDS = 30.0


class ReceiptTags:
    """Signs receipts with the secret that all gateways share."""

    def __init__(self, secret: ReceiptSecret, threads: Executor) -> None:
        self._secret = secret
        self._threads = threads

    async def refresh(self) -> None:
        """Reads the secret again: a queue server that was made anew has none, or another's."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._secret.load)

    async def ready(self) -> None:
        """The secret is known afterwards. Raises QueueUnavailableError."""
        if self._secret.value is None:
            await self.refresh()

    def of(self, receipt: Receipt, key: Key) -> TaggedReceipt:
        """The receipt of the key's own request. Once `ready`."""
        assert self._secret.value is not None
        return TaggedReceipt.of(receipt, key.id, self._secret.value)

    def may_see(self, key: Key, receipt: TaggedReceipt) -> bool:
        """Whether the request was the key's own, or the key may read all requests of the stream. Blocking."""
        if not key.sees(receipt.receipt.stream):
            return False
        return key.allows("read") or receipt.is_of(key.id, self._secret.value or self._secret.load())
