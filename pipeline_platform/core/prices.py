"""Prices as values: intervals, candles and quotes, and what can be wrong. Times are aware UTC, prices Decimal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Interval(StrEnum):
    """The lengths of candles. Every one divides a UTC day, so candles of all sources open at the same instants."""

    MINUTE = "1m"
    FIVE_MINUTES = "5m"
    QUARTER_HOUR = "15m"
    HOUR = "1h"
    DAY = "1d"

    @property
    def length(self) -> timedelta:
        """How long a candle lasts."""
        return LENGTHS[self]

    @property
    def seconds(self) -> int:
        """How long a candle lasts, in seconds."""
        return int(LENGTHS[self].total_seconds())

    def floor(self, at: datetime) -> datetime:
        """When the candle that holds `at` opened."""
        return at - (at - EPOCH) % self.length

    def ceiling(self, at: datetime) -> datetime:
        """The first opening at or after `at`."""
        return at + (EPOCH - at) % self.length


LENGTHS = {
    Interval.MINUTE: timedelta(minutes=1),
    Interval.FIVE_MINUTES: timedelta(minutes=5),
    Interval.QUARTER_HOUR: timedelta(minutes=15),
    Interval.HOUR: timedelta(hours=1),
    Interval.DAY: timedelta(days=1),
}


@dataclass(frozen=True, slots=True, order=True)
class Instrument:
    """What a source calls a thing with a price: ("binance", "BTCUSDT")."""

    source: str
    symbol: str


@dataclass(frozen=True, slots=True)
class Candle:
    """The prices of [open_time, open_time + interval). `closed`: the source will not change it any more.

    A source without traded volume (foreign exchange, CoinGecko) gives volume 0.
    """

    source: str
    symbol: str
    interval: Interval
    open_time: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    closed: bool

    @property
    def close_time(self) -> datetime:
        """The end, which is the next candle's opening."""
        return self.open_time + self.interval.length


@dataclass(frozen=True, slots=True)
class Quote:
    """The latest price at `at`: the source's own time where it gives one, otherwise when the answer came."""

    source: str
    symbol: str
    price: Decimal
    at: datetime


def is_closed(open_time: datetime, interval: Interval, now: datetime, grace: timedelta = timedelta()) -> bool:
    """Whether a candle is over for at least `grace`: sources correct a candle for a while after its end."""
    return open_time + interval.length + grace <= now


def last_closed(interval: Interval, now: datetime, grace: timedelta = timedelta()) -> datetime:
    """The exclusive end of all closed candles: when the first candle that is not closed opened."""
    return interval.floor(now - grace)


def faults(candle: Candle) -> list[str]:
    """What is wrong with a candle, in words; nothing when it may be stored."""
    return list(_faults(candle))


def _faults(candle: Candle) -> Iterator[str]:
    numbers = {name: getattr(candle, name) for name in ("open", "high", "low", "close", "volume")}
    unusable = [name for name, value in numbers.items() if not value.is_finite()]
    for name in unusable:
        yield f"{name} {numbers[name]} is not a number"
    for name, value in numbers.items():
        if name not in unusable and value < 0:
            yield f"{name} {value} is negative"
    for name in ("open", "close", "high"):
        if not {name, "low"} & set(unusable) and numbers[name] < candle.low:
            yield f"{name} {numbers[name]} is below low {candle.low}"
    for name in ("open", "close"):
        if not {name, "high"} & set(unusable) and numbers[name] > candle.high:
            yield f"{name} {numbers[name]} is above high {candle.high}"
    if candle.open_time.utcoffset() != timedelta():
        yield f"open_time {candle.open_time} is not in UTC"
    elif candle.interval.floor(candle.open_time) != candle.open_time:
        yield f"open_time {candle.open_time:%Y-%m-%dT%H:%M:%SZ} is not the start of a {candle.interval.value} candle"
