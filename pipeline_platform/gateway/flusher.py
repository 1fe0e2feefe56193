"""Group commit: concurrent requests share one pipeline to the queue, and so one fsync.

While a flush is under way the next requests gather; the next flush takes all of them. With one client a request waits
for its own append only, with a hundred they share.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pipeline_platform.errors import QueueUnavailableError
from pipeline_platform.queue.protocol import Appended, NewEntry, Queue, QueueRefusal

Outcome = Appended | QueueRefusal
Waiting = tuple[NewEntry, "asyncio.Future[Outcome]"]


class Flusher:
    """Appends through one worker thread; `observe(items, seconds)` is told of every flush."""

    def __init__(
        self,
        queue: Queue,
        *,
        max_items: int = 512,
        max_bytes: int = 16 * 2**20,
        observe: Callable[[int, float], None] = lambda _items, _seconds: None,
    ) -> None:
        self._queue = queue
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._observe = observe
        self._waiting: deque[Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, "append")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False

    def append(self, item: NewEntry) -> asyncio.Future[Outcome]:
        """The entry's fate, once it is durable or refused. Raises QueueUnavailableError when neither is known."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = self._loop.create_future()
        if self._closed:
            future.set_exception(QueueUnavailableError("The gateway is shutting down."))
            return future
        self._waiting.append((item, future))
        if self._idle.is_set():
            self._idle.clear()
            # Not at once: requests that arrived in the same turn of the loop come along.
            self._loop.call_soon(self._flush)
        return future

    def _flush(self) -> None:
        assert self._loop is not None
        taken: list[Waiting] = []
        size = 0
        while self._waiting and len(taken) < self._max_items:
            size += len(self._waiting[0][0].data)
            if taken and size > self._max_bytes:
                size -= len(self._waiting[0][0].data)
                break
            taken.append(self._waiting.popleft())
        if not taken:
            self._idle.set()
            return
        started = self._loop.time()
        work = self._loop.run_in_executor(self._thread, self._queue.append, [item for item, _ in taken])
        work.add_done_callback(lambda done: self._settle(taken, done, started))

    def _settle(self, taken: list[Waiting], done: asyncio.Future[list[Outcome]], started: float) -> None:
        assert self._loop is not None
        error = done.exception()
        if error is None:
            for (_, future), outcome in zip(taken, done.result(), strict=True):
                if not future.done():
                    future.set_result(outcome)
        else:
            for _, future in taken:
                if not future.done():
                    future.set_exception(error)
        self._observe(len(taken), self._loop.time() - started)
        self._flush()

    async def close(self) -> None:
        """Finishes what was taken on, and takes on no more."""
        self._closed = True
        await self._idle.wait()
        self._thread.shutdown()
