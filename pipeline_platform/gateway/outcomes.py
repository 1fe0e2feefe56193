"""`?wait=`: many requests wait for their outcome, one query at a time asks for all of them."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor

from pipeline_platform.core.entries import EntryId, TaggedReceipt
from pipeline_platform.errors import PlatformError
from pipeline_platform.gateway.receipts import ReceiptBook, ReceiptDocument

POLL_SECONDS = 0.075
_AWAY_SECONDS = 1.0


class OutcomePoller:
    """One poller a stream, only while somebody waits."""

    def __init__(self, receipts: ReceiptBook, threads: Executor) -> None:
        self._receipts = receipts
        self._threads = threads
        self._waiting: dict[str, dict[EntryId, list[asyncio.Future[None]]]] = {}
        self._pollers: dict[str, asyncio.Task[None]] = {}

    async def wait(self, asked: TaggedReceipt, timeout: float, *, whole: bool) -> ReceiptDocument | None:
        """The outcome of the request, or None when it is not settled within `timeout` seconds.

        `whole` is as `ReceiptBook.find` has it.
        """
        receipt = asked.receipt
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        stream = self._waiting.setdefault(receipt.stream, {})
        stream.setdefault(receipt.entry, []).append(future)
        if receipt.stream not in self._pollers:
            self._pollers[receipt.stream] = loop.create_task(self._poll(receipt.stream))
        try:
            async with asyncio.timeout(timeout):
                await future
            return await loop.run_in_executor(self._threads, lambda: self._receipts.find(asked, whole=whole))
        except (TimeoutError, PlatformError, asyncio.CancelledError):
            # The request was accepted, whatever its outcome will be. A cancellation is the server's shutdown, and the
            # client had better hear its receipt before that.
            return None
        finally:
            others = stream.get(receipt.entry, [])
            if future in others:
                others.remove(future)
            if not others:
                stream.pop(receipt.entry, None)

    async def _poll(self, stream: str) -> None:
        loop = asyncio.get_running_loop()
        waiting = self._waiting[stream]
        try:
            while waiting:
                pause = POLL_SECONDS
                try:
                    settled = await loop.run_in_executor(self._threads, self._receipts.settled, stream, list(waiting))
                except PlatformError:
                    settled, pause = set(), _AWAY_SECONDS
                for entry in settled:
                    for future in waiting.get(entry, []):
                        if not future.done():
                            future.set_result(None)
                await asyncio.sleep(pause)
        finally:
            del self._pollers[stream]

    async def close(self) -> None:
        """Ends the pollers."""
        for task in list(self._pollers.values()):
            task.cancel()
        await asyncio.gather(*self._pollers.values(), return_exceptions=True)
