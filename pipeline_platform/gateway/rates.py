"""Rate limits without a round trip a request: tokens are leased from Redis in chunks and spent here."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

from pipeline_platform.errors import QueueRefusedError, TransientError
from pipeline_platform.queue.limits import Lease, Limit, TokenBuckets

_TRACKED = 20_000
_AWAY_SECONDS = 1.0  # how long Redis is left alone after it did not answer


@dataclass(slots=True)
class _Bucket:
    tokens: float
    shared: float  # what Redis said is left for everybody
    refused_until: float = 0.0
    refill: asyncio.Task[None] | None = None
    fallback_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Allowance:
    """Whether a request may go on; `reset` is seconds until there is a token (refused) or a full bucket."""

    allowed: bool
    limit: int
    remaining: int
    reset: float


class RateLimiter:
    """One kind of limit, by name: API keys, or client addresses.

    While Redis is away each gateway keeps the limit by itself, from the same numbers.
    """

    def __init__(
        self,
        kind: str,
        buckets: TokenBuckets,
        limit: Limit,
        threads: Executor,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind = kind
        self._shared = buckets
        self._limit = limit
        self._threads = threads
        self._clock = clock
        self._tracked: OrderedDict[str, _Bucket] = OrderedDict()
        self._away_until = 0.0

    def take_now(self, name: str) -> Allowance | None:
        """Spends a token that is here already, or None when Redis has to be asked first (`take`)."""
        bucket = self._tracked.get(name)
        if bucket is None or bucket.tokens < 1.0:
            return None
        bucket.tokens -= 1.0
        if bucket.tokens < self._limit.chunk / 2 and bucket.refill is None and self._limit.chunk > 4:
            self._start_refill(name, bucket)
        return self._allow(bucket)

    async def take(self, name: str) -> Allowance:
        """Spends a token, leasing more when there is none."""
        bucket = self._track(name)
        for _ in range(3):
            at_once = self.take_now(name)
            if at_once is not None:
                return at_once
            now = self._clock()
            if now < bucket.refused_until:
                break
            await asyncio.shield(bucket.refill or self._start_refill(name, bucket))
        pause = max(bucket.refused_until - self._clock(), 1.0 / self._limit.rate)
        return Allowance(False, int(self._limit.capacity), 0, pause)

    def _track(self, name: str) -> _Bucket:
        bucket = self._tracked.get(name)
        if bucket is None:
            while len(self._tracked) >= _TRACKED:
                self._tracked.popitem(last=False)  # only what was leased is lost: Redis keeps the bucket
            bucket = self._tracked[name] = _Bucket(0.0, self._limit.capacity)
        self._tracked.move_to_end(name)
        return bucket

    def _allow(self, bucket: _Bucket) -> Allowance:
        left = min(self._limit.capacity, bucket.shared + bucket.tokens)
        return Allowance(True, int(self._limit.capacity), int(left), (self._limit.capacity - left) / self._limit.rate)

    def _start_refill(self, name: str, bucket: _Bucket) -> asyncio.Task[None]:
        bucket.refill = asyncio.get_running_loop().create_task(self._refill(name, bucket))
        return bucket.refill

    async def _refill(self, name: str, bucket: _Bucket) -> None:
        try:
            lease = await self._ask(name, bucket)
            bucket.tokens += lease.granted
            bucket.shared = lease.left
            if not lease.granted:
                bucket.refused_until = self._clock() + self._limit.pause(lease.left)
        finally:
            bucket.refill = None

    async def _ask(self, name: str, bucket: _Bucket) -> Lease:
        if self._clock() >= self._away_until:
            loop = asyncio.get_running_loop()
            try:
                return await loop.run_in_executor(
                    self._threads, self._shared.lease, f"{self._kind}:{name}", self._limit, self._limit.chunk
                )
            except (TransientError, QueueRefusedError):
                self._away_until = self._clock() + _AWAY_SECONDS
        return self._fallback(bucket)

    def _fallback(self, bucket: _Bucket) -> Lease:
        now = self._clock()
        elapsed = now - bucket.fallback_at if bucket.fallback_at else 0.0
        bucket.fallback_at = now
        left = min(self._limit.capacity, bucket.shared + elapsed * self._limit.rate)
        granted = min(self._limit.chunk, int(left))
        return Lease(granted, left - granted)
