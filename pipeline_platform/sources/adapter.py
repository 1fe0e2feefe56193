"""What all sources share: reach, order, and each candle once. A source adds its pages and its readers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Candle, Interval, Quote, faults, is_closed
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import SettingError
from pipeline_platform.sources.http import HttpClient
from pipeline_platform.sources.protocol import Quotes, Rejects

BEGINNING = datetime(2010, 1, 1, tzinfo=UTC)  # before any exchange of coins


class Adapter(ABC):
    """A Source over HTTP. The class variables are the vendor's facts; prices.yaml may override URL and allowance."""

    base_url: ClassVar[str]
    allowance: ClassVar[Allowance]
    intervals: ClassVar[frozenset[Interval]] = frozenset(Interval)
    calendar: ClassVar[Calendar] = Calendar.ALWAYS
    grace: ClassVar[timedelta] = timedelta(seconds=10)
    opened: ClassVar[datetime] = BEGINNING  # nothing is older
    page: ClassVar[int]  # candles a request
    key_header: ClassVar[str | None] = None

    def __init__(self, name: str, http: HttpClient, clock: Callable[[], datetime]) -> None:
        self.name = name
        self._http = http
        self._clock = clock

    @property
    def spent(self) -> int:
        """Requests made so far."""
        return self._http.spent

    def max_candles_per_request(self, interval: Interval) -> int:  # noqa: ARG002 - some sources differ by interval
        """How many candles one request brings at most."""
        return self.page

    def reach(self, interval: Interval, now: datetime) -> datetime:  # noqa: ARG002 - some sources keep only so much
        """The oldest opening that the source still gives."""
        return self.opened

    def quotes(self, symbols: Sequence[str]) -> Quotes:
        """The latest price of each symbol, in the order asked; see Source."""
        return Quotes(self._quotes(symbols))

    @abstractmethod
    def _quotes(self, symbols: Sequence[str]) -> list[Quote]:
        """The latest price of each symbol, in the order asked."""

    def candles(self, symbol: str, interval: Interval, wanted: TimeRange, rejects: Rejects) -> Iterator[Candle]:
        """The candles that open within `wanted` and within reach, ascending, each once; see Source."""
        if interval not in self.intervals:
            there = ", ".join(sorted(self.intervals))
            raise SettingError(f"{self.name} has no candles of {interval}; choose one of {there} in prices.yaml.")
        now = self._clock()
        part = wanted.within(self.reach(interval, now), interval.floor(now) + interval.length)
        return iter(()) if part is None else self._candles(symbol, interval, part, rejects)

    def close(self) -> None:
        """Gives back the connections."""
        self._http.close()

    def _candles(self, symbol: str, interval: Interval, wanted: TimeRange, rejects: Rejects) -> Iterator[Candle]:
        last: datetime | None = None
        for page in self._pages(symbol, interval, wanted):
            for at, candle in sorted({each.open_time: each for each in page}.items()):
                if at in wanted and (last is None or at > last):
                    last = at
                    if wrong := faults(candle):
                        rejects.add(at, f"{symbol} {interval}: {wrong[0]}")
                    else:
                        yield candle

    def _pages(self, symbol: str, interval: Interval, wanted: TimeRange) -> Iterator[Iterable[Candle]]:
        """Pages of ascending ranges, in any order within; of whole candles, even when the range ends within one."""
        start, end = interval.ceiling(wanted.start), interval.ceiling(wanted.end)
        if start < end:
            for chunk in TimeRange(start, end).chunks(interval.length * self.max_candles_per_request(interval)):
                yield self._page(symbol, interval, chunk)

    @abstractmethod
    def _page(self, symbol: str, interval: Interval, chunk: TimeRange) -> Iterable[Candle]:
        """The candles of one request; more than asked for does no harm."""

    def _closed(self, open_time: datetime, interval: Interval) -> bool:
        return is_closed(open_time, interval, self._clock(), self.grace)
