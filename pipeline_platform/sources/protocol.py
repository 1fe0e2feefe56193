"""What the platform asks of a source of prices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Candle, Interval, Quote
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import SourceRefusedError, SourceUnavailableError


@dataclass(frozen=True, slots=True)
class Quotes:
    """What a source answers about several symbols: each is found, refused or rejected, or `trouble` kept it away.

    `refused`: the source's words by symbol, for what it does not know. `rejected`: records at odds, in words.
    """

    found: list[Quote] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)
    trouble: SourceUnavailableError | SourceRefusedError | None = None


class Rejects(Protocol):
    """Where records at odds go: off the grid, without a number, impossible."""

    def add(self, at: datetime | None, why: str) -> None:
        """One record. `at`: its time, where that can be read."""


class Source(Protocol):
    """A source of prices. Symbols are the source's own (`BTCUSDT`, `BTC-USD`, `bitcoin`).

    Every method that asks the source raises SourceUnavailableError (a later attempt may succeed; `retry_after` says
    when), UnknownSymbolError (the source says so; it has the `symbol`), SourceRefusedError (the same failure for a day;
    `symbol` where it concerns one alone) or SourceShapeError (the answer is not what the source's documents promise;
    names the field). One record at odds is no error: it is rejected, and the others are given. Nothing is asked without
    the shared budget's leave.
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

    def quotes(self, symbols: Sequence[str]) -> Quotes:
        """The latest price of each symbol, in the order asked, at the time of the fact: a trade, a rate's day."""

    def candles(self, symbol: str, interval: Interval, wanted: TimeRange, rejects: Rejects) -> Iterator[Candle]:
        """The candles that open within `wanted` and within reach: ascending, each once, closed and open ones.

        Pages inside, as few requests as the source allows. Where the source has none nothing is made up. When the
        iteration ends without an error the source has answered for the whole of `wanted` within reach. What is at odds
        with itself (`core.prices.faults`) goes to `rejects`.
        """

    def close(self) -> None:
        """Give back the connections."""
