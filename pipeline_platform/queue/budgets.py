"""Sources' budgets in Redis: one token bucket a source for all workers, with a reserve for live work and pauses.

The server's clock counts, so workers whose clocks differ share a budget. `budgets_memory` is the twin for tests.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from pipeline_platform.core.budgets import FORGOTTEN, TOGETHER, Allowance, Failing, Priority
from pipeline_platform.errors import SettingError, SourceUnavailableError
from pipeline_platform.queue.connection import queue_errors

# KEYS: budget   ARGV: tokens a second, burst, weight, what has to be left, 1 for live work
# n: tokens at time t; p: paused until; w: live work waits until. Answers seconds to wait, "0" when spent.
TAKE = """
local now = redis.call('TIME')
local t = tonumber(now[1]) + tonumber(now[2]) / 1000000
local rate, burst, weight, floor = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local live = ARGV[5] == '1'
local state = redis.call('HMGET', KEYS[1], 'n', 't', 'p', 'w')
local n, paused, awaited = tonumber(state[1]) or burst, tonumber(state[3]) or 0, tonumber(state[4]) or 0
n = math.min(burst, n + math.max(0, t - (tonumber(state[2]) or t)) * rate)
local wait = math.max(0, (weight + floor - n) / rate)
if not live then wait = math.max(wait, awaited - t) end
wait = math.max(wait, paused - t)
if wait <= 0 then
  n = n - weight
  if live then awaited = 0 end
elseif live then
  awaited = math.max(awaited, t + wait + 1)
end
redis.call('HSET', KEYS[1], 'n', string.format('%.6f', n), 't', string.format('%.6f', t),
  'w', string.format('%.6f', awaited))
local kept = math.max(burst / rate, paused - t, awaited - t)
redis.call('PEXPIRE', KEYS[1], math.ceil(kept * 1000) + 60000)
return string.format('%.6f', wait > 0 and math.max(wait, 0.001) or 0)
"""

# KEYS: budget   ARGV: seconds. A pause never shortens another.
PAUSE = """
local now = redis.call('TIME')
local t = tonumber(now[1]) + tonumber(now[2]) / 1000000
local until_ = math.max(tonumber(redis.call('HGET', KEYS[1], 'p')) or 0, t + tonumber(ARGV[1]))
redis.call('HSET', KEYS[1], 'p', string.format('%.6f', until_))
if redis.call('PTTL', KEYS[1]) < (until_ - t) * 1000 + 60000 then
  redis.call('PEXPIRE', KEYS[1], math.ceil((until_ - t) * 1000) + 60000)
end
return 1
"""

# KEYS: failures   ARGV: forgotten after seconds, together within seconds, 1 to note one more, names.
# A value is "count first last".
# Answers "count lasted ago" for each name, "" for none.
FAILURES = """
local now = redis.call('TIME')
local t = tonumber(now[1]) + tonumber(now[2]) / 1000000
local forgotten, together, more, answer = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3] == '1', {}
for place = 4, #ARGV do
  local count, first, last = 0, t, t
  local known = redis.call('HGET', KEYS[1], ARGV[place])
  if known then
    local c, f, l = string.match(known, '(%S+) (%S+) (%S+)')
    if t - tonumber(l) <= forgotten then count, first, last = tonumber(c), tonumber(f), tonumber(l) end
  end
  if more and (count == 0 or t - last >= together) then
    count, last = count + 1, t
    redis.call('HSET', KEYS[1], ARGV[place], string.format('%d %.3f %.3f', count, first, last))
  end
  answer[#answer + 1] = count > 0 and string.format('%d %.3f %.3f', count, math.max(0, t - first), t - last) or ''
end
if more then redis.call('EXPIRE', KEYS[1], forgotten) end
return answer
"""

PATIENCE = 60.0  # seconds that `take` waits before it gives the time back to the run
LONGEST_NAP = 5.0  # a pause may have ended early, and tokens be left by others


class RedisBudget:
    """One source's budget. Every worker that names the same source shares it."""

    def __init__(
        self,
        client: redis.Redis,
        source: str,
        allowance: Allowance,
        *,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._take = client.register_script(TAKE)
        self._pause = client.register_script(PAUSE)
        self._failures = client.register_script(FAILURES)
        self._client = client
        self._keys, self._failing = [f"pp:budget:{source}"], f"pp:budget:{source}:failing"
        self._source, self._allowance = source, allowance
        self._patience, self._clock, self._sleep = patience, clock, sleep

    def take(self, weight: float, priority: Priority) -> None:
        """Spends `weight`, or waits for it; SourceUnavailableError when that would take longer than our patience."""
        wait_for(self._ask, self._source, self._allowance, weight, priority, self._patience, self._clock, self._sleep)

    def pause(self, seconds: float) -> None:
        """Lets nobody spend anything for `seconds`."""
        with queue_errors():
            self._pause(keys=self._keys, args=[seconds])

    def failing(self, *names: str) -> list[Failing | None]:
        """The failures in a row under each name."""
        return self._series(names, more=False)

    def failed(self, *names: str) -> list[Failing]:
        """One more failure under each name."""
        return [each for each in self._series(names, more=True) if each]

    def answered(self, *names: str) -> None:
        """The failures under these names are over."""
        with queue_errors():
            self._client.hdel(self._failing, *names)

    def _series(self, names: Sequence[str], *, more: bool) -> list[Failing | None]:
        with queue_errors():
            reply: Any = self._failures(keys=[self._failing], args=[FORGOTTEN, TOGETHER, int(more), *names])
        texts = (each.decode() if isinstance(each, bytes) else each for each in reply)
        return [_failing(*text.split()) if text else None for text in texts]

    def _ask(self, weight: float, priority: Priority) -> float:
        of = self._allowance
        live = int(priority is Priority.LIVE)
        with queue_errors():
            reply: Any = self._take(keys=self._keys, args=[of.rate, of.burst, weight, of.floor(weight, priority), live])
        return float(reply)


def _failing(count: str, lasted: str, ago: str) -> Failing:
    return Failing(int(count), float(lasted), float(ago))


def wait_for(
    ask: Callable[[float, Priority], float],
    source: str,
    allowance: Allowance,
    weight: float,
    priority: Priority,
    patience: float,
    clock: Callable[[], float],
    sleep: Callable[[float], object],
) -> None:
    """Asks until the weight is granted: `ask` answers how long to wait, or 0."""
    if weight > allowance.burst:
        raise SettingError(
            f"{source}: one request costs {weight:g}, and its budget's burst is {allowance.burst:g}: "
            "raise it in prices.yaml."
        )
    deadline = clock() + patience
    while wait := ask(weight, priority):
        if clock() + wait > deadline:
            raise SourceUnavailableError(
                f"{source}: its budget is spent, or it asked for a pause; a request can leave in {wait:.0f} s.",
                retry_after=wait,
            )
        sleep(min(wait, LONGEST_NAP) + random.random() * 0.01)
