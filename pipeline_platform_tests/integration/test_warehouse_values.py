"""What a column can hold, from a NULL to the largest number, and what an odd payload becomes."""

from __future__ import annotations

import resource
import time
from dataclasses import replace

import orjson
import pytest
import sqlalchemy as sa

from pipeline_platform.core.names import LONGEST_STREAM
from pipeline_platform.core.streams import parse_spec
from pipeline_platform.warehouse.load import load
from pipeline_platform.warehouse.migrate import migrate
from pipeline_platform_tests.integration.batches import (
    NOW_MS,
    TELEMETRY,
    WIDE,
    entry,
    event,
    ledger_agrees,
    load_entries,
    minutes_agree,
    plan,
    ready,
    rows,
    wide,
)

EXTREMES = (1e100, -1e100, 1e-100, -1e-100, 5e-324, -5e-324, 2.2e-308, 0.0, -0.0, 1.0, -1.0, 1e16, 1.0000000000000002)


def test_absent_measures_are_null_in_facts_and_left_out_of_the_aggregates(engine: sa.Engine) -> None:
    load_entries(engine, WIDE, entry(0, wide(a=1.0, b=2.0), wide(b=3.0), wide(a=4.0), wide()))
    assert rows(engine, "select a, b from wide order by a nulls last, b nulls last") == [
        (1.0, 2.0),
        (4.0, None),
        (None, 3.0),
        (None, None),
    ]
    assert rows(engine, "select a_count, a_sum, a_avg, b_count, b_min, b_last, events from wide_1m") == [
        (2, 5.0, 2.5, 2, 2.0, 3.0, 4)
    ]
    assert minutes_agree(engine, WIDE).holds


def test_a_window_in_which_a_measure_never_came_has_no_average_until_it_comes(engine: sa.Engine) -> None:
    load_entries(engine, WIDE, entry(0, wide(a=1.0)))
    assert rows(engine, "select b_count, b_sum, b_min, b_avg, b_var, b_first, b_last from wide_1m") == [
        (0, 0.0, None, None, None, None, None)
    ]
    load_entries(engine, WIDE, entry(1, wide(b=7.0)))
    load_entries(engine, WIDE, entry(2, wide(a=3.0)))
    assert rows(engine, "select a_avg, a_var, b_count, b_avg, b_var, b_first, b_last from wide_1m") == [
        (2.0, 1.0, 1, 7.0, 0.0, 7.0, 7.0)
    ]
    assert minutes_agree(engine, WIDE).holds


@pytest.mark.parametrize("one_load_each", [False, True])
def test_extreme_values_never_make_postgresql_overflow_or_underflow(engine: sa.Engine, one_load_each: bool) -> None:
    lines = [wide(a=first, b=second) for first in EXTREMES for second in EXTREMES[::3]]
    if one_load_each:
        for number, line in enumerate(lines):
            load_entries(engine, WIDE, entry(number, line))
    else:
        load_entries(engine, WIDE, entry(0, *lines))
    assert rows(engine, "select count(*) from wide") == [(len(lines),)]
    assert rows(engine, "select a_min, a_max, a_count from wide_1m") == [(-1e100, 1e100, len(lines))]
    assert rows(engine, "select a_avg, a_var, b_avg, b_var from wide_1m")
    assert minutes_agree(engine, WIDE).holds


def test_minus_zero_and_subnormals_are_stored_as_zero(engine: sa.Engine) -> None:
    load_entries(engine, WIDE, entry(0, *(wide(a=value) for value in (-0.0, 5e-324, -5e-324, 1e-101))))
    assert {str(row[0]) for row in rows(engine, "select a from wide")} == {"0.0"}


def test_what_is_beyond_the_largest_value_is_parked(engine: sa.Engine) -> None:
    outcome = load_entries(engine, WIDE, entry(0, wide(a=1e308), wide(a=-1.1e100), wide(a=1e100)))
    assert (outcome.loaded, outcome.rejected) == (1, 2)
    assert {row[0] for row in rows(engine, "select reason from dead_letters")} == {"out_of_range"}


def test_doubles_come_back_bit_for_bit(engine: sa.Engine) -> None:
    values = [0.1, 1 / 3, 2**53 + 2.0, 1.7976931348623157e99, 123456.789012345]
    load_entries(engine, WIDE, entry(0, *(wide(a=value, ts=NOW_MS + 60_000 * n) for n, value in enumerate(values))))
    assert [row[0] for row in rows(engine, "select a from wide order by ts")] == values
    assert [row[0] for row in rows(engine, "select a_sum from wide_1m order by window_start")] == values


def test_only_negatives_leave_a_loaded_batch_without_facts(engine: sa.Engine) -> None:
    outcome = load_entries(engine, TELEMETRY, entry(0, event(value=-1), event(value=-2)))
    assert (outcome.loaded, outcome.negative, outcome.windows, outcome.first_ts) == (0, 2, 0, None)
    assert rows(engine, "select state, events_negative, first_ts from assets") == [("loaded", 2, None)]
    assert rows(engine, "select count(*) from telemetry_1m") == [(0,)]
    assert ledger_agrees(engine, TELEMETRY).compared == 1


def test_only_rejections_leave_a_loaded_batch_of_dead_letters(engine: sa.Engine) -> None:
    assert load_entries(engine, TELEMETRY, entry(0, b"{", b"[]")).rejected == 2
    assert rows(engine, "select payload from dead_letters order by line") == [("{",), ("[]",)]
    assert ledger_agrees(engine, TELEMETRY).holds


def test_an_empty_batch_is_loaded(engine: sa.Engine) -> None:
    row = plan(engine, TELEMETRY, entry(0))
    nothing = replace(ready(TELEMETRY, row, ()), entries=(entry(0),))
    assert load(engine, TELEMETRY, nothing).read == 0
    assert rows(engine, "select state from assets") == [("loaded",)]


def test_payloads_that_postgresql_cannot_hold_are_parked_readable(engine: sa.Engine) -> None:
    lines = [
        b'{"a": "\xff\xfe"}',
        b"nul \0 here",
        rb'{"site": "\u0000", "a": 1}',
        rb'{"site": "\ud800", "a": 1}',
        "{naïve 😀 \\N \t \\.".encode(),
        b"\xed\xa0\x80",
    ]
    outcome = load_entries(engine, WIDE, entry(0, *lines))
    assert outcome.rejected == len(lines)
    assert [row[0] for row in rows(engine, "select payload from dead_letters order by line")] == [
        '{"a": "\\xff\\xfe"}',
        "nul \\u0000 here",
        r'{"site": "\u0000", "a": 1}',
        r'{"site": "\ud800", "a": 1}',
        "{naïve 😀 \\N \t \\.",
        "\\xed\\xa0\\x80",
    ]


def test_unknown_fields_with_odd_names_are_named(engine: sa.Engine) -> None:
    line = b'{"site": "x", "nul\\u0000 \xc3\xa9\\t": 1}'
    load_entries(engine, WIDE, entry(0, line))
    assert rows(engine, "select field from dead_letters") == [("nul\\u0000 é\t",)]


def test_a_hundred_thousand_rejections_take_seconds_and_little_memory(engine: sa.Engine) -> None:
    line = orjson.dumps({"source": "s1", "metric": "m1", "value": "many"})
    entries = [entry(number, *[line] * 1000) for number in range(100)]
    batch = ready(TELEMETRY, plan(engine, TELEMETRY, *entries), entries)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    assert load(engine, TELEMETRY, batch).rejected == 100_000
    assert time.perf_counter() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024  # KiB
    assert rows(engine, "select count(*) from dead_letters") == [(100_000,)]


def test_dimensions_in_any_script_stay_apart(engine: sa.Engine) -> None:
    sites = ["", " ", "é", "e\u0301", "ß", "SS", "日本", "😀", "a'b\"c\\", "{x,y}", "NULL", "a\tb\nc", "x" * 256]
    load_entries(engine, WIDE, entry(0, *(wide(site=site, a=1.0) for site in sites)))
    load_entries(engine, WIDE, entry(1, *(wide(site=site, a=1.0) for site in sites)))
    assert {row[0] for row in rows(engine, "select site from wide_1m where events = 2")} == set(sites)
    assert rows(engine, "select count(*) from wide_series") == [(len(sites),)]


def test_a_missing_dimension_becomes_its_default(engine: sa.Engine) -> None:
    load_entries(engine, WIDE, entry(0, wide(a=1.0), wide(a=1.0, unit="none"), wide(a=1.0, unit="")))
    assert sorted(rows(engine, "select unit, events from wide_1m")) == [("", 1), ("none", 2)]


def test_the_widest_stream_with_the_longest_names_and_values_loads(own_engine: sa.Engine) -> None:
    dimensions = [f"d{number:02}_{'x' * 36}" for number in range(16)]
    measures = [f"m{number:02}_{'y' * 36}" for number in range(32)]
    text = f"name: {'s' * LONGEST_STREAM}\ndimensions: [{', '.join(dimensions)}]\nmeasures: [{', '.join(measures)}]\n"
    spec = parse_spec(text, "longest.yaml")
    migrate(own_engine, [spec])
    values = {name: float(number) for number, name in enumerate(measures)}
    lines = [orjson.dumps(dict.fromkeys(dimensions, f"{n}" + "é" * 60) | values | {"ts": NOW_MS}) for n in range(50)]
    assert load_entries(own_engine, spec, entry(0, *lines), entry(1, *lines)).loaded == 100
    assert rows(own_engine, f'select count(*), sum("{measures[31]}_sum") from "{spec.name}_1m"') == [(50, 3100.0)]
    assert minutes_agree(own_engine, spec).holds
