"""What is costly to make and asked for often: made once a second, whoever and however many ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Generic, TypeVar

FRESH_SECONDS = 1.0

Made = TypeVar("Made")


class Fresh(Generic[Made]):
    """`make` in a worker thread, one at a time; everybody who asks meanwhile waits for the same."""

    def __init__(
        self, make: Callable[[], Made], threads: Executor, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._make = make
        self._threads = threads
        self._clock = clock
        self._made: Made | None = None
        self._made_at = float("-inf")
        self._making: asyncio.Future[Made] | None = None

    async def read(self) -> Made:
        """At most FRESH_SECONDS old."""
        if self._made is not None and self._clock() - self._made_at < FRESH_SECONDS:
            return self._made
        if self._making is None:
            self._making = asyncio.ensure_future(self._remake())
        return await asyncio.shield(self._making)

    async def _remake(self) -> Made:
        began = self._clock()
        try:
            self._made = await asyncio.get_running_loop().run_in_executor(self._threads, self._make)
            self._made_at = began
            return self._made
        finally:
            self._making = None
