"""Which candles are missing, in how few ranges, at what cost: against counting one by one."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import EPOCH, Interval
from pipeline_platform.core.time_ranges import TimeRange, coalesce, cost, in_words, missing, of_day, of_days

START = datetime(2024, 2, 28, tzinfo=UTC)  # the day before a leap day
intervals = st.sampled_from(list(Interval))
# Around leap days and the changes of daylight saving time, which UTC must not notice.
starts = st.sampled_from(
    [START, datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC), datetime(2025, 12, 31, tzinfo=UTC)]
)


@st.composite
def ranges(draw: st.DrawFn) -> TimeRange:
    start = draw(starts) + timedelta(minutes=draw(st.integers(0, 3000)))
    return TimeRange(start, start + timedelta(minutes=draw(st.integers(1, 3000))))


@given(ranges(), intervals)
def test_openings_are_the_multiples_within(wanted: TimeRange, interval: Interval) -> None:
    minutes = [
        wanted.start + timedelta(minutes=n) for n in range(int((wanted.end - wanted.start).total_seconds()) // 60)
    ]
    expected = [at for at in minutes if (at - EPOCH) % interval.length == timedelta()]
    assert list(wanted.openings(interval)) == expected
    assert wanted.candles(interval) == len(expected)


@given(st.lists(ranges(), max_size=8))
def test_coalesced_ranges_hold_the_same_times_and_do_not_touch(parts: list[TimeRange]) -> None:
    whole = coalesce(parts)
    assert all(one.end < other.start for one, other in pairwise(whole))
    edges = {edge for each in parts for edge in (each.start, each.end, each.end - timedelta(minutes=1))}
    for at in edges:
        assert any(at in each for each in whole) == any(at in each for each in parts)
    assert coalesce(whole) == whole
    assert coalesce(reversed(parts)) == whole


def test_ranges_a_small_gap_apart_become_one_when_told() -> None:
    day = timedelta(days=1)
    parts = [TimeRange(START, START + day), TimeRange(START + 2 * day, START + 3 * day)]
    assert coalesce(parts) == parts
    assert coalesce(parts, gap=day) == [TimeRange(START, START + 3 * day)]


@given(ranges(), intervals, st.data())
def test_what_is_missing_and_what_is_present_make_the_whole(
    wanted: TimeRange, interval: Interval, data: st.DataObject
) -> None:
    openings = list(wanted.openings(interval))
    present = data.draw(st.sets(st.sampled_from(openings))) if openings else set()
    gaps = missing(wanted, interval, present)
    found = [at for gap in gaps for at in gap.openings(interval)]
    assert sorted([*found, *present]) == openings
    assert coalesce(gaps) == gaps


@given(ranges(), intervals)
def test_with_nothing_present_all_is_one_gap(wanted: TimeRange, interval: Interval) -> None:
    gaps = missing(wanted, interval, [])
    assert len(gaps) <= 1
    assert sum(gap.candles(interval) for gap in gaps) == wanted.candles(interval)


def test_weekends_and_holidays_are_no_gaps_of_the_ecb() -> None:
    easter = of_days(date(2026, 3, 30), date(2026, 4, 12))
    expects = Calendar.ECB.expects
    expected = [at.day for at in easter.openings(Interval.DAY) if expects(at)]
    assert expected == [30, 31, 1, 2, 7, 8, 9, 10]  # without Good Friday and Easter Monday
    [gap] = missing(easter, Interval.DAY, [], expects)
    assert (gap.start.day, gap.end.day) == (30, 11)  # one range, whatever weekends are in it
    present = [at for at in easter.openings(Interval.DAY) if expects(at)]
    assert missing(easter, Interval.DAY, present, expects) == []
    assert missing(easter, Interval.DAY, present[:4] + present[5:], expects) == [of_day(date(2026, 4, 7))]


@pytest.mark.parametrize(
    ("year", "easter_monday"), [(2000, (4, 24)), (2019, (4, 22)), (2024, (4, 1)), (2025, (4, 21)), (2038, (4, 26))]
)
def test_easter_moves(year: int, easter_monday: tuple[int, int]) -> None:
    assert not Calendar.ECB.expects(datetime(year, *easter_monday, tzinfo=UTC))
    assert Calendar.ECB.expects(datetime(year, *easter_monday, tzinfo=UTC) + timedelta(days=1))
    assert Calendar.ALWAYS.expects(datetime(year, *easter_monday, tzinfo=UTC))


@given(st.lists(ranges(), max_size=5), intervals, st.integers(1, 1000))
def test_the_cost_is_the_pages_of_every_range(parts: list[TimeRange], interval: Interval, page: int) -> None:
    pages = 0
    for each in parts:
        openings = list(each.openings(interval))
        pages += len([openings[at : at + page] for at in range(0, len(openings), page)])
    assert cost(parts, interval, page) == pages


def test_a_day_has_24_hours_whatever_clocks_in_towns_do() -> None:
    for day in (date(2026, 3, 29), date(2026, 10, 25), date(2024, 2, 29)):
        assert of_day(day).candles(Interval.HOUR) == 24
        assert of_day(day).candles(Interval.MINUTE) == 1440
    assert of_days(date(2024, 1, 1), date(2024, 12, 31)).candles(Interval.DAY) == 366


def test_chunks_make_the_whole() -> None:
    whole = of_days(date(2024, 2, 27), date(2024, 3, 2))
    chunks = list(whole.chunks(timedelta(days=2)))
    assert [each.candles(Interval.DAY) for each in chunks] == [2, 2, 1]
    assert coalesce(chunks) == [whole]


def test_ranges_that_are_none_are_refused() -> None:
    with pytest.raises(ValueError, match="ends after"):
        TimeRange(START, START)
    with pytest.raises(ValueError, match="UTC"):
        TimeRange(START.replace(tzinfo=None), (START + timedelta(days=1)).replace(tzinfo=None))
    berlin = timezone(timedelta(hours=1))
    with pytest.raises(ValueError, match="UTC"):
        TimeRange(START.astimezone(berlin), START + timedelta(days=1))


def test_the_part_within() -> None:
    day = of_day(date(2024, 2, 29))
    assert day.within(START, START + timedelta(days=9)) == day
    assert day.within(day.end, day.end + timedelta(days=1)) is None
    noon = day.start + timedelta(hours=12)
    assert day.within(noon, day.end + timedelta(days=1)) == TimeRange(noon, day.end)


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(days=7), "7 days"),
        (timedelta(days=1), "1 day"),
        (timedelta(hours=6), "6 hours"),
        (timedelta(minutes=90), "90 minutes"),
        (timedelta(seconds=2.5), "2.5 seconds"),
    ],
)
def test_a_span_in_words(span: timedelta, words: str) -> None:
    assert in_words(span) == words
