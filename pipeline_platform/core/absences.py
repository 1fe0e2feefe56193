"""What a source answered "nothing" for: a fact with a time. It is asked again a few times, later and later; then it
is settled. See docs/decisions/0031."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Interval
from pipeline_platform.core.time_ranges import TimeRange

# After the first, second and third answer; with the fourth it is settled. The first is a little less than an hour: the
# next hourly run takes it along.
PAUSES = (timedelta(minutes=50), timedelta(hours=6), timedelta(days=1))


@dataclass(frozen=True, slots=True)
class Absence:
    """A source had nothing for `span`: it said so `times` times, first and last at those times.

    Before `again_at` nobody asks again; None: it is settled.
    """

    span: TimeRange
    times: int
    first_asked_at: datetime
    asked_at: datetime
    again_at: datetime | None

    def same_story(self, other: Absence) -> bool:
        """Whether two that touch each other can be one: asked about alike, or both settled."""
        if self.again_at is None:
            return other.again_at is None
        return (self.times, self.asked_at) == (other.times, other.asked_at)


def again_at(times: int, asked_at: datetime) -> datetime | None:
    """When to ask again after so many answers of "nothing"; None when they are enough."""
    return asked_at + PAUSES[times - 1] if times <= len(PAUSES) else None


def answered(
    known: Iterable[Absence],
    asked: TimeRange,
    holes: Sequence[TimeRange],
    at: datetime,
    interval: Interval,
    calendar: Calendar = Calendar.ALWAYS,
) -> list[Absence]:
    """What is known after an answer: a source was asked for all of `asked` at `at`, and had nothing for `holes`.

    `known` and `holes` ascend, and `holes` lie within `asked`. Where there is something now, nothing is known any
    more. An answer that comes before `again_at` does not count: five runs in a minute are one question.
    """
    found, left = [], list(holes)
    for each in sorted(known, key=lambda absence: absence.span):
        found += [replace(each, span=part) for part in without(each.span, [asked])]
        found += [_once_more(each, part, at) for hole in _near(holes, each.span) if (part := _common(hole, each.span))]
    spans = sorted(each.span for each in found)
    for hole in left:
        for part in without(hole, _near(spans, hole)):
            pause = again_at(1, at) if _expects(calendar, interval, part) else None
            found.append(Absence(part, 1, at, at, pause))
    return _joined(sorted(found, key=lambda absence: absence.span))


def without(span: TimeRange, taken: Iterable[TimeRange]) -> list[TimeRange]:
    """What is left of the range; `taken` ascends."""
    left, start = [], span.start
    for each in taken:
        if each.start > start:
            left.append(TimeRange(start, min(each.start, span.end)))
        start = max(start, each.end)
        if start >= span.end:
            return left
    return [*left, TimeRange(start, span.end)]


def _once_more(known: Absence, part: TimeRange, at: datetime) -> Absence:
    if known.again_at is None or at < known.again_at:
        return replace(known, span=part)
    times = known.times + 1
    return Absence(part, times, known.first_asked_at, at, again_at(times, at))


def _near(ranges: Sequence[TimeRange], span: TimeRange) -> Iterator[TimeRange]:
    """Those that overlap the span; by bisection, since a year of minutes may have many holes."""
    for number in range(bisect_right(ranges, span.start, key=lambda each: each.end), len(ranges)):
        if ranges[number].start >= span.end:
            return
        yield ranges[number]


def _common(one: TimeRange, other: TimeRange) -> TimeRange | None:
    return one.within(other.start, other.end)


def _expects(calendar: Calendar, interval: Interval, span: TimeRange) -> bool:
    """Whether there can be a candle in it at all: a weekend without rates needs no second question."""
    return calendar is Calendar.ALWAYS or any(calendar.expects(at) for at in span.openings(interval))


def _joined(ascending: Iterable[Absence]) -> list[Absence]:
    joined: list[Absence] = []
    for each in ascending:
        last = joined[-1] if joined else None
        if last is not None and last.span.end == each.span.start and last.same_story(each):
            joined[-1] = Absence(
                TimeRange(last.span.start, each.span.end),
                max(last.times, each.times),
                min(last.first_asked_at, each.first_asked_at),
                max(last.asked_at, each.asked_at),
                each.again_at,
            )
        else:
            joined.append(each)
    return joined
