"""Batches are exact: every waiting entry is in one of them, in order, within the bounds."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.core.batches import (
    Batch,
    Pace,
    PaceLimits,
    linger,
    plan_batches,
    retry_pause,
    spend,
    without_rest,
)
from pipeline_platform.core.entries import EntryId, EntrySize

sizes = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 300)), max_size=60)


def waiting(*sizes: tuple[int, int]) -> list[EntrySize]:
    """Entries of (events, bytes) with ascending ids."""
    return [EntrySize(EntryId(1000 + number // 3, number % 3), *size) for number, size in enumerate(sizes)]


def plan(entries: list[EntrySize], *, events: int = 20, size: int = 200, batches: int = 1000) -> list[Batch]:
    return list(plan_batches("telemetry", entries, max_events=events, max_bytes=size, max_batches=batches))


def inside(batch: Batch, entries: list[EntrySize]) -> list[EntrySize]:
    return [entry for entry in entries if batch.first_id <= entry.id <= batch.last_id]


@given(sizes)
def test_every_entry_is_in_exactly_one_batch_in_order(shape: list[tuple[int, int]]) -> None:
    entries = waiting(*shape)
    batches = plan(entries)
    assert [entry for batch in batches for entry in inside(batch, entries)] == entries
    assert all(one.last_id < other.first_id for one, other in pairwise(batches))


@given(sizes)
def test_a_batch_knows_its_size_and_only_a_single_entry_exceeds_a_bound(shape: list[tuple[int, int]]) -> None:
    entries = waiting(*shape)
    for batch in plan(entries):
        held = inside(batch, entries)
        totals = (len(held), sum(entry.events for entry in held), sum(entry.bytes for entry in held))
        assert (batch.entries, batch.events, batch.bytes) == totals
        assert (batch.events <= 20 and batch.bytes <= 200) or batch.entries == 1


@given(sizes)
def test_a_batch_ends_only_where_the_next_entry_would_not_fit(shape: list[tuple[int, int]]) -> None:
    entries = waiting(*shape)
    for batch, following in pairwise(plan(entries)):
        next_entry = inside(following, entries)[0]
        assert batch.events + next_entry.events > 20 or batch.bytes + next_entry.bytes > 200


@given(sizes, st.integers(0, 5))
def test_fewer_batches_are_the_first_ones(shape: list[tuple[int, int]], most: int) -> None:
    entries = waiting(*shape)
    assert plan(entries, batches=most) == plan(entries)[:most]


def test_a_batch_may_be_exactly_full() -> None:
    assert [batch.entries for batch in plan(waiting((10, 1), (10, 1), (1, 1)))] == [2, 1]
    assert [batch.entries for batch in plan(waiting((1, 100), (1, 100), (1, 1)))] == [2, 1]


@given(sizes)
def test_only_the_last_batch_may_have_room_left(shape: list[tuple[int, int]]) -> None:
    batches = plan(waiting(*shape))
    assert all(batch.full for batch in batches[:-1])
    assert all(batch.events >= 20 or batch.bytes >= 200 for batch in batches[-1:] if batch.full)
    assert all(batch.events < 20 and batch.bytes < 200 for batch in batches[-1:] if not batch.full)


def test_a_rest_behind_full_batches_waits_for_more() -> None:
    assert [batch.events for batch in without_rest(plan(waiting((20, 1), (20, 1), (5, 1))))] == [20, 20]
    assert [batch.events for batch in without_rest(plan(waiting((20, 1), (20, 1))))] == [20, 20]
    assert [batch.events for batch in without_rest(plan(waiting((5, 1))))] == [5]
    assert without_rest([]) == []


def test_an_oversized_entry_makes_a_batch_of_its_own() -> None:
    assert [batch.events for batch in plan(waiting((1, 1), (500, 1), (1, 1)))] == [1, 500, 1]


def test_nothing_waiting_makes_no_batch() -> None:
    assert plan([]) == []


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 2), (2, 4), (3, 8), (4, 16), (5, 30), (6, 30), (999, 30)])
def test_the_pause_doubles_up_to_half_a_minute(attempt: int, seconds: float) -> None:
    assert retry_pause(attempt) == seconds


LIMITS = PaceLimits(idle=0.05, per_second=1.0, burst=3.0)


def test_a_lone_request_lingers_only_as_long_as_idle() -> None:
    assert linger(Pace(3.0, 100.0), 100.0, LIMITS) == 0.05


def test_without_a_token_the_planner_waits_for_the_next() -> None:
    assert linger(Pace(0.0, 100.0), 100.25, LIMITS) == pytest.approx(0.75)


def test_a_debt_is_waited_for_too() -> None:
    assert linger(spend(Pace(0.0, 100.0), 100.0, 2, LIMITS), 100.0, LIMITS) == pytest.approx(3.0)


def test_the_debt_of_a_backlog_is_bounded_by_the_burst() -> None:
    assert spend(Pace(3.0, 100.0), 100.0, 1000, LIMITS).tokens == -3.0


def test_tokens_do_not_pile_up_while_nothing_comes() -> None:
    assert spend(Pace(0.0, 0.0), 1e9, 1, LIMITS).tokens == 2.0


def test_a_clock_that_goes_back_neither_lends_nor_withholds() -> None:
    assert linger(Pace(0.0, 200.0), 100.0, LIMITS) == pytest.approx(1.0)


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60))
def test_sustained_runs_stay_below_the_ceiling(gaps: list[float]) -> None:
    now, pace, began = 1000.0, Pace(LIMITS.burst, 1000.0), 1000.0
    for runs, gap in enumerate(gaps, 1):
        now += gap
        now += linger(pace, now, LIMITS)
        pace = spend(pace, now, 1, LIMITS)
        assert runs <= LIMITS.burst + (now - began) * LIMITS.per_second + 1e-6
