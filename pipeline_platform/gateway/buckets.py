"""Token buckets of this process: for reads and refusals, which are too many to ask Redis about each."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from pipeline_platform.gateway.rates import Allowance

_TRACKED = 20_000


class Buckets:
    """`rate` tokens a second for each name, `burst` at once. Full buckets are forgotten first."""

    def __init__(self, rate: float, burst: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = max(1.0, burst)
        self._clock = clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when there were so many

    def take(self, name: str, cost: float = 1.0) -> Allowance:
        """Spends `cost` tokens, if they are there. What costs more than a full bucket holds, costs a full bucket."""
        now = self._clock()
        tokens, at = self._left.pop(name, (self._burst, now))
        tokens = min(self._burst, tokens + max(0.0, now - at) * self._rate)
        cost = min(cost, self._burst)
        allowed = tokens >= cost
        if allowed:
            tokens -= cost
        self._left[name] = (tokens, now)
        if len(self._left) > _TRACKED:
            self._left.popitem(last=False)  # the one that was asked for longest ago
        missing = (self._burst if allowed else cost) - tokens
        return Allowance(allowed, int(self._burst), int(tokens), missing / self._rate)
