"""Half-open ranges of UTC time: which candles are missing, in how few ranges, at what cost in requests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from pipeline_platform.core.prices import Interval


@dataclass(frozen=True, slots=True, order=True)
class TimeRange:
    """[start, end), both aware UTC; ValueError when they are not, or when it is empty."""

    start: datetime
    end: datetime

    def __post_init__(self) -> None:
        if self.start.utcoffset() != timedelta() or self.end.utcoffset() != timedelta():
            raise ValueError(f"a range is in UTC: {self.start} to {self.end}")
        if self.start >= self.end:
            raise ValueError(f"a range ends after it starts: {self.start} to {self.end}")

    def __contains__(self, at: datetime) -> bool:
        return self.start <= at < self.end

    def within(self, start: datetime, end: datetime) -> TimeRange | None:
        """The part that lies in [start, end)."""
        start, end = max(self.start, start), min(self.end, end)
        return TimeRange(start, end) if start < end else None

    def openings(self, interval: Interval) -> Iterator[datetime]:
        """When the candles open whose opening lies in the range."""
        at = interval.ceiling(self.start)
        while at < self.end:
            yield at
            at += interval.length

    def candles(self, interval: Interval) -> int:
        """How many candles open in the range."""
        return max(0, -((interval.ceiling(self.start) - self.end) // interval.length))

    def chunks(self, length: timedelta) -> Iterator[TimeRange]:
        """The range in pieces of `length`; the last may be shorter."""
        start = self.start
        while start < self.end:
            yield TimeRange(start, min(self.end, start + length))
            start += length


def of_day(day: date) -> TimeRange:
    """A UTC day. Daylight saving does not exist here: every day has 24 hours."""
    return of_days(day, day)


def of_days(first: date, last: date) -> TimeRange:
    """The UTC days from `first` to `last`, both included."""
    return TimeRange(
        datetime.combine(first, time(), UTC),
        datetime.combine(last + timedelta(days=1), time(), UTC),
    )


def coalesce(ranges: Iterable[TimeRange], gap: timedelta = timedelta()) -> list[TimeRange]:
    """The same times in the fewest ranges, ascending. Ranges that are at most `gap` apart become one."""
    merged: list[TimeRange] = []
    for each in sorted(ranges):
        if merged and each.start - merged[-1].end <= gap:
            merged[-1] = TimeRange(merged[-1].start, max(merged[-1].end, each.end))
        else:
            merged.append(each)
    return merged


def missing(
    wanted: TimeRange,
    interval: Interval,
    present: Iterable[datetime],
    expected: Callable[[datetime], bool] = lambda _: True,
) -> list[TimeRange]:
    """The candles of `wanted` that are not among the opening times `present`, as the fewest ranges.

    `expected` says at which openings there can be a candle at all (`core/calendars.py`): a weekend without foreign
    exchange is not a gap, and does not split one.
    """
    there = set(present)
    gaps: list[TimeRange] = []
    first = last = None
    for at in wanted.openings(interval):
        if at in there:
            if first is not None and last is not None:
                gaps.append(TimeRange(first, last + interval.length))
            first = last = None
        elif expected(at):
            first, last = first or at, at
    if first is not None and last is not None:
        gaps.append(TimeRange(first, last + interval.length))
    return gaps


def cost(ranges: Iterable[TimeRange], interval: Interval, per_request: int) -> int:
    """The requests that fetching these ranges takes when one brings at most `per_request` candles."""
    return sum(-(-each.candles(interval) // per_request) for each in ranges)


def in_words(span: timedelta) -> str:
    """`7 days`, `15 minutes`: a whole number of the largest unit that fits."""
    for unit, seconds in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        count, rest = divmod(span, timedelta(seconds=seconds))
        if not rest:
            return f"{count} {unit}" + ("" if count == 1 else "s")
    return f"{span.total_seconds():g} seconds"
