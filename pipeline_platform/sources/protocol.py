"""What the platform asks of a source of prices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange


class Source(Protocol):
    """A source of prices. Symbols are the source's own (`BTCUSDT`, `BTC-USD`, `bitcoin`).

    Every method that asks the source raises SourceUnavailableError (a later attempt may succeed; `retry_after` says
    when, if the source did), SourceRefusedError (an unknown symbol, a wrong key) or SourceShapeError (the answer is not
    what the source's documents promise; names the field). Nothing is asked without the shared budget's leave.
    """

    @property
    def name(self) -> str:
        """The source's name in prices.yaml and in every row."""

    @property
    def intervals(self) -> frozenset[Interval]:
        """The intervals that the source has candles of; `candles` raises SettingError for others."""

    def max_candles_per_request(self, interval: Interval) -> int:
        """For `core.time_ranges.cost`."""

    @property
    def calendar(self) -> Calendar:
        """When there can be a candle at all; its `expects` goes to `core.time_ranges.missing`."""

    @property
    def grace(self) -> timedelta:
        """How long after its end a candle may still change; then it is `closed`."""

    @property
    def spent(self) -> int:
        """Requests that this object has made so far."""

    def reach(self, interval: Interval, now: datetime) -> datetime:
        """The oldest opening that the source still gives at `now`. What is older is beyond reach, not a gap."""

    def quotes(self, symbols: Sequence[str]) -> list[Quote]:
        """The latest price of each symbol, in the order asked."""

    def candles(self, symbol: str, interval: Interval, wanted: TimeRange) -> Iterator[Candle]:
        """The candles that open within `wanted` and within reach: ascending, each once, closed and open ones.

        Pages inside, as few requests as the source allows. Where the source has none there is a gap: nothing is made
        up. A candle may be at odds with itself (`core.prices.faults`); the caller decides what becomes of it.
        """

    def close(self) -> None:
        """Give back the connections."""
