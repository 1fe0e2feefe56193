"""What is known after a source has answered: ranges of "nothing", how often it said so, and when it is asked again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.core.absences import PAUSES, Absence, again_at, answered
from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import Interval
from pipeline_platform.core.time_ranges import TimeRange

T0 = datetime(2024, 3, 28, tzinfo=UTC)  # Thursday before Easter
HOUR = timedelta(hours=1)
ASKED = datetime(2024, 6, 1, tzinfo=UTC)
NEVER = timedelta(days=400)


def hours(first: int, until: int) -> TimeRange:
    """[first, until) hours from T0."""
    return TimeRange(T0 + first * HOUR, T0 + until * HOUR)


def told(known: list[Absence]) -> list[tuple[int, int, int]]:
    """(first, until, times) in hours from T0."""
    return [((each.span.start - T0) // HOUR, (each.span.end - T0) // HOUR, each.times) for each in known]


def ask(known: list[Absence], asked: TimeRange, *holes: TimeRange, at: datetime = ASKED) -> list[Absence]:
    """An answer about hours."""
    return answered(known, asked, holes, at, Interval.HOUR)


def test_nothing_is_asked_again_a_few_times_with_growing_pauses_and_then_settled() -> None:
    known, at, asked_at = ask([], hours(0, 24), hours(3, 5)), ASKED, [ASKED]
    while known[0].again_at is not None:
        at = known[0].again_at
        assert ask(known, hours(0, 24), hours(3, 5), at=at - timedelta(microseconds=1)) == known  # too soon to count
        known = ask(known, hours(0, 24), hours(3, 5), at=at)
        asked_at.append(at)
    assert told(known) == [(3, 5, len(PAUSES) + 1)]
    assert (known[0].first_asked_at, known[0].asked_at) == (ASKED, at)
    pauses = [later - earlier for earlier, later in pairwise(asked_at)]
    assert pauses == sorted(pauses) == list(PAUSES)
    assert ask(known, hours(0, 24), hours(3, 5), at=at + NEVER) == known


def test_the_pauses_are_of_the_documents() -> None:
    assert [again_at(times, T0) for times in (1, 2, 3, 4, 5)] == [
        T0 + timedelta(minutes=50),
        T0 + timedelta(hours=6),
        T0 + timedelta(days=1),
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("asked", "holes", "left"),
    [
        pytest.param((0, 24), [], [], id="all of it came after all"),
        pytest.param((4, 5), [], [(2, 4, 1), (5, 8, 1)], id="one hour of it came"),
        pytest.param((0, 24), [(3, 8)], [(3, 8, 1)], id="its first hour came"),
        pytest.param((0, 24), [(2, 8), (9, 10)], [(2, 8, 1), (9, 10, 1)], id="another hole beside it"),
        pytest.param((8, 24), [(8, 9)], [(2, 9, 1)], id="the hour after it, asked at the same time"),
        pytest.param((30, 40), [], [(2, 8, 1)], id="another range"),
        pytest.param((0, 24), [(0, 24)], [(0, 24, 1)], id="the day has nothing at all"),
    ],
)
def test_what_an_answer_changes(
    asked: tuple[int, int], holes: list[tuple[int, int]], left: list[tuple[int, int, int]]
) -> None:
    known = ask([], hours(0, 24), hours(2, 8))
    assert told(ask(known, hours(*asked), *(hours(*each) for each in holes))) == left


def test_what_is_settled_is_one_range_whenever_it_was_asked() -> None:
    known: list[Absence] = []
    for hour in range(48):  # a halt of two days, asked about every hour
        at = T0 + (hour + 1) * HOUR
        due = [each.span for each in known if each.again_at is not None and each.again_at <= at]
        for span in [hours(hour, hour + 1), *due]:
            known = answered(known, span, [span], at, Interval.HOUR)
    assert told(known)[0] == (0, 17, 4)  # asked after 1, 2, 8 and 32 hours
    assert len(known) < 48 - 17 + 2
    at += NEVER
    for _ in range(4):
        known, at = ask(known, hours(0, 48), hours(0, 48), at=at), at + NEVER
    assert told(known) == [(0, 48, 4)]


@pytest.mark.parametrize(
    ("first", "days", "settled"),
    [
        pytest.param(datetime(2024, 3, 29, tzinfo=UTC), 1, True, id="good friday"),
        pytest.param(datetime(2024, 3, 30, tzinfo=UTC), 2, True, id="a weekend"),
        pytest.param(datetime(2024, 3, 29, tzinfo=UTC), 4, True, id="the whole of easter"),
        pytest.param(datetime(2024, 12, 25, tzinfo=UTC), 2, True, id="christmas"),
        pytest.param(datetime(2024, 3, 28, tzinfo=UTC), 1, False, id="a working day"),
        pytest.param(datetime(2024, 3, 29, tzinfo=UTC), 5, False, id="easter and the day after"),
    ],
)
def test_a_day_off_needs_no_second_question(first: datetime, days: int, settled: bool) -> None:
    span = TimeRange(first, first + timedelta(days=days))
    (known,) = answered([], span, [span], ASKED, Interval.DAY, Calendar.ECB)
    assert (known.again_at is None) is settled
    (known,) = answered([], span, [span], ASKED, Interval.DAY, Calendar.ALWAYS)
    assert known.again_at is not None  # coins trade always


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 8), st.sets(st.integers(0, 48)), st.integers(0, 40)), max_size=12
    )
)
def test_any_answers_leave_what_the_last_of_each_hour_said(answers: list[tuple[int, int, set[int], int]]) -> None:
    known: list[Absence] = []
    last: dict[int, bool] = {}
    times: dict[int, int] = {}
    at = ASKED
    for start, length, empty, later in answers:
        at += later * HOUR
        asked = range(start, start + length)
        holes = [hours(hour, hour + 1) for hour in asked if hour in empty]
        for hour in asked:
            last[hour] = hour in empty
            times[hour] = times.get(hour, 0) + 1 if hour in empty else 0
        known = ask(known, hours(start, start + length), *holes, at=at)
    hourly = {hour: each for each in known for hour in range(*told([each])[0][:2])}
    assert sorted(hourly) == sorted(hour for hour, absent in last.items() if absent)
    assert all(1 <= each.times <= max(times[hour], 1) for hour, each in hourly.items() if each.again_at is not None)
    assert all(one.span.end <= other.span.start for one, other in pairwise(known))
