"""The vendors' rate limits, counted as they do: weight a window; Binance bans with 418 who goes on after 429."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from pipeline_platform.local.price_server.replies import Reply


@dataclass(frozen=True)
class Limit:
    """`weight` in a window of `seconds`."""

    weight: int
    seconds: int


LIMITS = {
    "binance": Limit(6000, 60),
    "coinbase": Limit(15, 1),
    "kraken": Limit(15, 10),
    "coingecko": Limit(30, 60),
    "rates": Limit(120, 60),
}
IGNORED_BEFORE_BAN = 5
BAN_SECONDS = 120


class Meters:
    """What has been spent in the current window, by venue. Not enforced unless asked for: tests are in a hurry."""

    def __init__(self, enforced: bool) -> None:
        self._enforced = enforced
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[int, int, int]] = {}  # window, weight, refusals in it
        self._banned_until = 0.0

    def used(self, venue: str) -> int:
        """The weight of the current window."""
        with self._lock:
            return self._windows.get(venue, (0, 0, 0))[1]

    def spend(self, venue: str, weight: int, now: float) -> Reply | None:
        """Counts a request; what to answer instead when it is one too many."""
        limit = LIMITS[venue]
        number = int(now // limit.seconds)
        with self._lock:
            window, spent, refusals = self._windows.get(venue, (number, 0, 0))
            if window != number:
                spent = refusals = 0
            spent += weight
            over = self._enforced and spent > limit.weight
            refusals += over
            self._windows[venue] = (number, spent, refusals)
            if venue == "binance" and refusals > IGNORED_BEFORE_BAN:
                self._banned_until = max(self._banned_until, now + BAN_SECONDS)
            banned = self._banned_until - now if venue == "binance" else 0.0
        if banned > 0:
            body = {"code": -1003, "msg": "Way too many requests; IP banned."}
            return Reply(body, 418, {"Retry-After": str(int(banned) + 1)})
        if not over:
            return None
        wait = str(int((number + 1) * limit.seconds - now) + 1)
        if venue == "kraken":
            return Reply({"error": ["EAPI:Rate limit exceeded"]})
        return Reply({"code": -1003, "msg": "Too many requests."}, 429, {"Retry-After": wait})
