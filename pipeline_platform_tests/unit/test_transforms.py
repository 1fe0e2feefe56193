"""drop_negatives and aggregate, against a recomputation with Python's statistics."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from dataclasses import dataclass
from random import Random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_platform.core.transforms import aggregate, drop_negatives
from pipeline_platform.core.validation import Columns
from pipeline_platform.core.windows import MINUTE_US
from pipeline_platform_tests.unit.examples import stream

SPEC = stream()
EXACT = ["count", "min", "max", "first", "first_us", "last", "last_us"]


@dataclass(frozen=True)
class Event:
    """A valid event: series, time, value and perhaps a weight."""

    series: int
    ts_us: int
    value: float
    weight: float = math.nan


def columns(events: list[Event]) -> Columns:
    ts_us = np.array([event.ts_us for event in events], np.int64)
    return Columns(
        np.arange(len(events), dtype=np.int32),
        ts_us,
        ts_us,
        np.array([event.series for event in events], np.int32),
        (("a", "m"), ("b", "m"), ("c", "m")),
        {
            "value": np.array([event.value for event in events], np.float64),
            "weight": np.array([event.weight for event in events], np.float64),
        },
    )


def frame(events: list[Event], width_us: int = MINUTE_US) -> pd.DataFrame:
    return aggregate(columns(events), width_us).frame


def windows(events: list[Event]) -> dict[tuple[int, int], list[Event]]:
    found: dict[tuple[int, int], list[Event]] = defaultdict(list)
    for event in events:
        found[event.series, event.ts_us - event.ts_us % MINUTE_US].append(event)
    return dict(sorted(found.items()))


def tolerance(events: list[Event]) -> float:
    """What rounding may cost a sum of these events' squares."""
    return 1e-12 * len(events) * max([abs(event.value) ** 2 + abs(event.value) for event in events], default=0) + 1e-12


numbers = st.floats(-1e6, 1e6).filter(lambda number: number == 0 or abs(number) > 1e-6)
times = st.integers(-3 * MINUTE_US, 3 * MINUTE_US) | st.sampled_from([-MINUTE_US, -1, 0, 1, MINUTE_US - 1, MINUTE_US])
events = st.lists(st.builds(Event, st.integers(0, 2), times, numbers, numbers | st.just(math.nan)), max_size=40)


def same(one: pd.DataFrame, other: pd.DataFrame, allowed: float) -> None:
    """Equal exactly, but for sums and m2."""
    assert list(one.columns) == list(other.columns)
    for name in one.columns:
        left, right = one[name].to_numpy(np.float64), other[name].to_numpy(np.float64)
        if name.endswith(("_sum", "_m2")):
            np.testing.assert_allclose(left, right, rtol=1e-9, atol=allowed, err_msg=name)
        else:
            np.testing.assert_array_equal(left, right, err_msg=name)


@settings(deadline=None)
@given(events, st.randoms(use_true_random=False))
def test_the_order_of_the_events_does_not_matter(events: list[Event], random: Random) -> None:
    shuffled = list(events)
    random.shuffle(shuffled)
    same(frame(events), frame(shuffled), tolerance(events))


@settings(deadline=None)
@given(events)
def test_the_aggregates_are_those_of_a_naive_recomputation(events: list[Event]) -> None:
    result, expected = frame(events), windows(events)
    assert list(zip(result["series_code"], result["window_us"], strict=True)) == list(expected)
    for row, held in zip(result.to_dict("records"), expected.values(), strict=True):
        assert row["events"] == len(held)
        for name in ("value", "weight"):
            known = [(event.ts_us, getattr(event, name)) for event in held if not math.isnan(getattr(event, name))]
            assert row[f"{name}_count"] == len(known)
            if not known:
                assert row[f"{name}_sum"] == row[f"{name}_m2"] == 0
                assert row[f"{name}_first_us"] == row[f"{name}_last_us"] == 0
                assert all(math.isnan(row[f"{name}_{part}"]) for part in ("min", "max", "first", "last"))
                continue
            values = [value for _, value in known]
            assert (row[f"{name}_min"], row[f"{name}_max"]) == (min(values), max(values))
            assert (row[f"{name}_first_us"], row[f"{name}_first"]) == min(known)
            assert (row[f"{name}_last_us"], row[f"{name}_last"]) == max(known)
            scale = max(map(abs, values))
            assert row[f"{name}_sum"] == pytest.approx(math.fsum(values), rel=1e-9, abs=1e-12 * len(values) * scale)
            m2 = statistics.pvariance(values) * len(values)
            assert row[f"{name}_m2"] == pytest.approx(m2, rel=1e-9, abs=1e-12 * len(values) * scale**2)


def merged(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Two batches' aggregates as one, by Chan's formula: what the warehouse's upsert does."""
    rows: dict[tuple[float, float], dict[str, float]] = {}
    for record in [*one.to_dict("records"), *other.to_dict("records")]:
        row = {str(name): value for name, value in record.items()}
        key = row["series_code"], row["window_us"]
        rows[key] = merge(rows[key], row) if key in rows else row
    merged = pd.DataFrame([rows[key] for key in sorted(rows)], columns=one.columns)
    return merged.astype(dict(one.dtypes))


def merge(a: dict[str, float], b: dict[str, float]) -> dict[str, float]:
    result = {**a, "events": a["events"] + b["events"]}
    for name in ("value", "weight"):
        left, right = a[f"{name}_count"], b[f"{name}_count"]
        if not right:
            continue
        if not left:
            result |= {column: b[column] for column in b if column.startswith(f"{name}_")}
            continue
        delta = b[f"{name}_sum"] / right - a[f"{name}_sum"] / left
        first = min((part[f"{name}_first_us"], part[f"{name}_first"]) for part in (a, b))
        last = max((part[f"{name}_last_us"], part[f"{name}_last"]) for part in (a, b))
        result |= {
            f"{name}_count": left + right,
            f"{name}_sum": a[f"{name}_sum"] + b[f"{name}_sum"],
            f"{name}_min": min(a[f"{name}_min"], b[f"{name}_min"]),
            f"{name}_max": max(a[f"{name}_max"], b[f"{name}_max"]),
            f"{name}_m2": a[f"{name}_m2"] + b[f"{name}_m2"] + delta**2 * left * right / (left + right),
            f"{name}_first": first[1],
            f"{name}_first_us": first[0],
            f"{name}_last": last[1],
            f"{name}_last_us": last[0],
        }
    return result


@settings(deadline=None)
@given(events, st.integers(0, 40))
def test_two_batches_merge_to_what_one_would_have_given(events: list[Event], cut: int) -> None:
    every = [abs(number) for event in events for number in (event.value, event.weight) if not math.isnan(number)]
    allowed = 1e-11 * len(events) * max(every, default=0) ** 2 + 1e-11 * max(every, default=0)
    same(merged(frame(events[:cut]), frame(events[cut:])), frame(events), allowed)


def test_a_window_holds_its_start_and_not_its_end() -> None:
    result = frame([Event(0, ts_us, 1) for ts_us in (-1, 0, MINUTE_US - 1, MINUTE_US)])
    assert result["window_us"].tolist() == [-MINUTE_US, 0, MINUTE_US]
    assert result["events"].tolist() == [1, 2, 1]


def test_a_window_may_be_wider() -> None:
    result = frame([Event(0, ts_us, 1) for ts_us in (0, MINUTE_US, 60 * MINUTE_US)], 60 * MINUTE_US)
    assert result["events"].tolist() == [2, 1]


def test_of_events_at_one_time_the_smallest_is_first_and_the_largest_last() -> None:
    [row] = frame([Event(0, 5, value) for value in (2, 9, 1, 4)]).to_dict("records")
    assert (row["value_first"], row["value_last"]) == (1, 9)


def test_the_spread_of_large_numbers_does_not_cancel_out() -> None:
    [row] = frame([Event(0, 0, 1e9 + step) for step in (0.0, 1.0, 2.0)]).to_dict("records")
    assert row["value_m2"] == pytest.approx(2)


@given(events)
def test_counting_groups_and_hashing_them_give_the_same(events: list[Event]) -> None:
    counted = frame(events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline_platform.core.transforms.CELLS_PER_EVENT", 0)
        pd.testing.assert_frame_equal(frame(events), counted, check_exact=True)


def test_no_events_give_no_rows_of_the_same_columns() -> None:
    assert len(frame([])) == 0
    assert list(frame([]).columns) == list(frame([Event(0, 0, 1)]).columns)


def test_the_columns_have_the_same_types_whether_values_are_missing_or_not() -> None:
    whole = frame([Event(0, 0, 1, 1)]).dtypes
    assert (frame([Event(0, 0, 1)]).dtypes == whole).all()
    assert (frame([]).dtypes == whole).all()


def test_only_negatives_of_a_dropping_measure_go_and_are_counted() -> None:
    spec = stream("name: x\ndimensions: [source]\nmeasures: {value: , weight: {negatives: keep, required: false}}")
    held = [Event(0, 0, 1), Event(1, 1, -1), Event(2, 2, 0.0), Event(0, 3, 1, -5), Event(0, 4, -2, 1)]
    dropped = drop_negatives(columns(held), spec)
    assert dropped.columns.entry.tolist() == [0, 2, 3]
    assert dropped.columns.ts_us.tolist() == [0, 2, 3]
    assert dropped.dropped_entry.tolist() == [1, 4]


@given(events)
def test_what_is_kept_and_what_is_dropped_are_all_events(events: list[Event]) -> None:
    dropped = drop_negatives(columns(events), SPEC)
    assert sorted([*dropped.columns.entry.tolist(), *dropped.dropped_entry.tolist()]) == list(range(len(events)))
    assert not (dropped.columns.measures["value"] < 0).any()


def test_an_event_negative_in_two_measures_is_dropped_once() -> None:
    assert drop_negatives(columns([Event(0, 0, -1, -1)]), SPEC).dropped_entry.tolist() == [0]


def test_nothing_negative_drops_nothing() -> None:
    assert len(drop_negatives(columns([]), SPEC).columns) == 0
    assert len(drop_negatives(columns([Event(0, 0, 1)]), SPEC).dropped_entry) == 0
