"""Token buckets in Redis, leased in chunks: a limit holds over all gateways without a round trip a request."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import redis

from pipeline_platform.queue.connection import queue_errors

# KEYS: bucket   ARGV: tokens a second, capacity, tokens wanted
# The server's clock counts, so that gateways with different clocks share a bucket. Answers granted, left (thousandths).
LEASE = """
local now = redis.call('TIME')
local t = tonumber(now[1]) + tonumber(now[2]) / 1000000
local rate, capacity, want = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local state = redis.call('HMGET', KEYS[1], 'n', 't')
local n = tonumber(state[1]) or capacity
local elapsed = math.max(0, t - (tonumber(state[2]) or t))
n = math.min(capacity, n + elapsed * rate)
local granted = math.min(want, math.floor(n))
n = n - granted
redis.call('HSET', KEYS[1], 'n', string.format('%.6f', n), 't', string.format('%.6f', t))
redis.call('PEXPIRE', KEYS[1], math.ceil(capacity / rate * 1000) + 1000)
return {granted, math.floor(n * 1000)}
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """Tokens that the asker may spend, and what is left in the bucket for everybody."""

    granted: int
    left: float


@dataclass(frozen=True, slots=True)
class Limit:
    """`rate` tokens a second, `capacity` at once."""

    rate: float
    capacity: float

    @property
    def chunk(self) -> int:
        """Tokens worth leasing at once: a tenth of a second's, so that few are idle in one gateway."""
        return max(1, int(min(self.rate / 10, self.capacity / 4)))

    def pause(self, left: float) -> float:
        """Seconds until a whole token is there when `left` are."""
        return max(0.0, (1.0 - left) / self.rate)

    @classmethod
    def of(cls, rate: float, burst_seconds: float) -> Limit:
        """A limit that lets `burst_seconds` worth of requests come at once, and at least one."""
        return cls(rate, float(max(1, math.floor(rate * burst_seconds))))


class TokenBuckets:
    """The shared buckets, by name."""

    def __init__(self, client: redis.Redis) -> None:
        self._lease = client.register_script(LEASE)

    def lease(self, name: str, limit: Limit, want: int) -> Lease:
        """Up to `want` tokens of the bucket. Raises QueueUnavailableError, or QueueFullError at the memory limit."""
        with queue_errors():
            reply: Any = self._lease(keys=[f"pp:limit:{name}"], args=[limit.rate, limit.capacity, want])
        return Lease(int(reply[0]), int(reply[1]) / 1000)
