"""The contract of a stream: why an event is refused, and what becomes of those that are not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from pipeline_platform.core.entries import Entry
from pipeline_platform.core.events import Decoded, decode
from pipeline_platform.core.rejections import Reason
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.validation import LARGEST, SMALLEST, Validated, validate
from pipeline_platform_tests.unit.examples import NOW_MS, NOW_US, entry, event, rejected, stream

SPEC = stream()
SECOND = 1_000_000
DAY = 86_400 * SECOND


def validated(*lines: bytes, spec: StreamSpec = SPEC) -> Validated:
    entries = [entry(*lines)]
    return validate(decode(entries, spec), entries, spec)


def reason(spec: StreamSpec = SPEC, **fields: Any) -> tuple[Reason, str] | None:
    """Why an event with these fields is refused, or None."""
    found = rejected(validated(event(**fields), spec=spec).rejections)
    return (found[0][2].reason, found[0][2].field) if found else None


def series_of(result: Validated) -> list[tuple[str, ...]]:
    """The dimensions of each valid event."""
    return [result.columns.series[code] for code in result.columns.series_code]


def ts(micros: int) -> str:
    """A time as RFC 3339 text."""
    return str(np.datetime64(micros, "us")) + "Z"


def test_a_good_event_is_valid() -> None:
    result = validated(event(ts=NOW_MS - 1))
    assert len(result.rejections) == 0
    assert result.columns.ts_us.tolist() == [NOW_US - 1000]
    assert result.columns.received_us.tolist() == [NOW_US]
    assert series_of(result) == [("s1", "m1")]
    assert result.columns.measures["value"].tolist() == [1.5]


@pytest.mark.parametrize("name", ["source", "metric", "value"])
def test_a_required_field_that_is_missing_or_null_is_refused(name: str) -> None:
    assert reason(SPEC, **{name: ...}) == (Reason.MISSING_FIELD, name)
    assert reason(SPEC, **{name: None}) == (Reason.MISSING_FIELD, name)


def test_an_optional_measure_may_be_missing() -> None:
    result = validated(event(), event(weight=2))
    assert np.isnan(result.columns.measures["weight"][0])
    assert result.columns.measures["weight"][1] == 2


def test_text_has_a_longest_length_in_characters() -> None:
    assert reason(source="ü" * 256) is None
    assert reason(source="ü" * 257) == (Reason.OUT_OF_RANGE, "source")


def test_text_may_be_empty_but_not_hold_a_nul() -> None:
    assert reason(source="") is None
    assert reason(metric="a\0b") == (Reason.MALFORMED, "metric")


def test_the_dimensions_together_fit_into_an_index() -> None:
    wide = stream("name: wide\ndimensions: {a: {max_length: 1024}, b: {max_length: 1024}}\nmeasures: [value]")
    lines = [b'{"a":"%s","b":"%s","value":1}' % (b"x" * 1000, b"y" * size) for size in (1000, 1001)]
    result = validated(*lines, spec=wide)
    assert [(line, problem.reason) for _, line, problem in rejected(result.rejections)] == [(1, Reason.OUT_OF_RANGE)]
    assert result.columns.series == (("x" * 1000, "y" * 1000),)


def test_a_number_is_finite() -> None:
    """JSON cannot say so, but columns could."""
    decoded = decode([entry(event())], SPEC)
    odd = Decoded(
        decoded.entry,
        decoded.line,
        decoded.ts_us,
        decoded.dimensions,
        decoded.measures | {"value": np.array([-np.inf])},
        decoded.rejections,
    )
    [(_, _, problem)] = rejected(validate(odd, [entry(event())], SPEC).rejections)
    assert problem.reason == Reason.NOT_FINITE


def test_a_number_is_within_what_sums_of_squares_can_hold() -> None:
    keep = stream("name: keep\ndimensions: [source, metric]\nmeasures: {value: {negatives: keep}}")
    assert reason(value=LARGEST) is None
    assert reason(value=LARGEST * 1.1) == (Reason.OUT_OF_RANGE, "value")
    assert reason(keep, value=-LARGEST * 1.1) == (Reason.OUT_OF_RANGE, "value")


@pytest.mark.parametrize("value", [-0.0, SMALLEST / 2, -SMALLEST / 2, 5e-324])
def test_minus_zero_and_tiny_numbers_become_zero(value: float) -> None:
    [kept] = validated(event(value=value)).columns.measures["value"]
    assert kept == 0
    assert not np.signbit(kept)


def test_negatives_are_refused_only_where_the_stream_says_so() -> None:
    refusing = stream("name: refusing\ndimensions: [source, metric]\nmeasures: {value: {negatives: reject}}")
    assert reason(refusing, value=-0.1) == (Reason.NEGATIVE_REJECTED, "value")
    assert reason(refusing, value=-0.0) is None
    assert reason(SPEC, value=-0.1) is None


def test_the_bounds_of_time_belong_to_the_inside() -> None:
    spec = stream(retention_days=7, future_tolerance=timedelta(seconds=90))
    assert reason(spec, ts=ts(NOW_US - 7 * DAY)) is None
    assert reason(spec, ts=ts(NOW_US - 7 * DAY - 1)) == (Reason.TS_OUT_OF_RANGE, "ts")
    assert reason(spec, ts=ts(NOW_US + 90 * SECOND)) is None
    assert reason(spec, ts=ts(NOW_US + 90 * SECOND + 1)) == (Reason.TS_OUT_OF_RANGE, "ts")


def test_the_clock_is_that_of_the_entry_so_that_a_rerun_gives_the_same() -> None:
    line = event(ts=ts(NOW_US - 7 * DAY))
    entries = [entry(line), entry(line, number=1)]
    spec = stream(retention_days=7)
    first, second = (validate(decode(entries, spec), entries, spec) for _ in range(2))
    assert [found[:2] for found in rejected(first.rejections)] == [(1, 0)]
    assert rejected(first.rejections) == rejected(second.rejections)
    assert first.columns.ts_us.tolist() == second.columns.ts_us.tolist()


def test_an_event_without_a_time_happened_when_it_was_received() -> None:
    entries = [entry(event()), entry(event(), number=5)]
    result = validate(decode(entries, SPEC), entries, SPEC)
    assert result.columns.ts_us.tolist() == [NOW_US, NOW_US + 5000]
    assert result.late == 0


def test_late_events_are_loaded_and_counted() -> None:
    late_after = timedelta(seconds=10)
    lines = [event(ts=ts(NOW_US - 10 * SECOND)), event(ts=ts(NOW_US - 10 * SECOND - 1)), event()]
    result = validated(*lines, spec=stream(late_after=late_after))
    assert (len(result.columns), result.late) == (3, 1)


DEFAULTS = "name: defaults\ndimensions:\n  source: {default: home}\n  metric: {default: m1}\nmeasures: [value]"


def test_a_default_fills_a_missing_field() -> None:
    assert series_of(validated(event(source=...), spec=stream(DEFAULTS))) == [("home", "m1")]


def test_a_default_and_the_same_text_given_are_one_series() -> None:
    """Two codes of one series would be two upserts of one row, which PostgreSQL refuses."""
    result = validated(event(source=...), event(source="home"), event(metric=...), spec=stream(DEFAULTS))
    assert series_of(result) == [("home", "m1"), ("home", "m1"), ("s1", "m1")]
    assert len(set(result.columns.series)) == len(result.columns.series) == 2


def test_the_series_of_refused_events_are_not_handed_on() -> None:
    lines = [event(source="bad\0text"), event(source="x" * 300), event(), event(source="s2", value=...)]
    result = validated(*lines, event(metric=...))
    assert result.columns.series == (("s1", "m1"),)
    assert series_of(result) == [("s1", "m1")]


def test_an_event_is_refused_for_its_first_problem_only() -> None:
    assert reason(source=..., metric="\0", value=..., ts=5) == (Reason.MISSING_FIELD, "source")
    assert len(validated(event(source=..., value=...)).rejections) == 1


def test_refused_lines_of_decoding_stay_refused() -> None:
    result = validated(b"bad", event(), event(source=...), event(more=1))
    assert [(line, problem.reason) for _, line, problem in rejected(result.rejections)] == [
        (0, Reason.MALFORMED),
        (2, Reason.MISSING_FIELD),
        (3, Reason.UNKNOWN_FIELD),
    ]


@pytest.mark.parametrize("lines", [[], [b"bad"], [event(source=...)]])
def test_nothing_valid_is_no_columns(lines: list[bytes]) -> None:
    entries: list[Entry] = [entry(*lines)] if lines else []
    result = validate(decode(entries, SPEC), entries, SPEC)
    assert (len(result.columns), result.columns.series, result.late) == (0, (), 0)
    assert len(result.rejections) == len(lines)


def test_valid_and_refused_events_are_all_events_once() -> None:
    lines = [event(source=f"s{n % 7}", value=n if n % 5 else ..., ts=ts(NOW_US - n * DAY)) for n in range(200)]
    result = validated(*lines, spec=stream(retention_days=100))
    assert len(result.columns) + len(result.rejections) == 200
    assert series_of(result) == [(f"s{n % 7}", "m1") for n in range(101) if n % 5]
