"""Decoding: every line ends as exactly one row or one rejection, and a bad line costs one line."""

from __future__ import annotations

import time
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_platform.core import events
from pipeline_platform.core.events import LEAP, MALFORMED, NOT_UTF8, NUMBER, TEXT, TIME, bad_type, decode, unknown_field
from pipeline_platform.core.rejections import Problem
from pipeline_platform_tests.unit.examples import MINIMAL, NOW_MS, NOW_US, entry, event, rejected, rows, stream

SPEC = stream(MINIMAL)
GOOD = b'{"source":"a","value":1}'


def refused(line: bytes) -> Problem:
    """Why `line` is refused, alone and among good lines alike."""
    alone = decode([entry(line)], SPEC)
    among = decode([entry(GOOD), entry(GOOD, line, GOOD)], SPEC)
    assert len(alone) == 0
    assert [row[:2] for row in rows(among)] == [(0, 0), (1, 0), (1, 2)]
    [(_, _, problem)] = rejected(alone.rejections)
    assert rejected(among.rejections) == [(1, 1, problem)]
    return problem


def moment(raw: bytes) -> int | None:
    """The time of an event whose ts is `raw`."""
    [row] = rows(decode([entry(b'{"ts":' + raw + b"}")], SPEC))
    return row[2]


def test_nothing_decodes_to_nothing() -> None:
    assert rows(decode([], SPEC)) == []
    assert len(decode([], SPEC).rejections) == 0


texts = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
times = st.none() | st.integers(-(10**13), 10**13)


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(texts, times, numbers), min_size=1, max_size=5), max_size=5))
def test_what_was_encoded_comes_back(requests: list[list[tuple[str | None, int | None, float | None]]]) -> None:
    entries = [
        entry(*[orjson.dumps({"source": source, "ts": ts, "value": value}) for source, ts, value in request])
        for request in requests
    ]
    expected = [
        (number, line, None if ts is None else ts * 1000, (source,), (value,))
        for number, request in enumerate(requests)
        for line, (source, ts, value) in enumerate(request)
    ]
    assert rows(decode(entries, SPEC)) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b" ",
        b"null",
        b"1",
        b"[]",
        b'"text"',
        b"garbage",
        b'{"source":"a"',
        b'{"source":"a",}',
        b"{'source':'a'}",
        GOOD + GOOD,
        GOOD + b"x",
        b'{"source":"a\tb"}',
        rb'{"source":"\x"}',
        rb'{"source":"\ud800"}',
        rb'{"source":"\udc00 alone"}',
        b'{"value":01}',
        b'{"value":1.}',
        b'{"value":NaN}',
        b'{"value":-Infinity}',
        b'{"value":1e400}',
        b'{"value":1' + b"0" * 400 + b"}",
        b'{"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"deep":' + b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b"\xef\xbb\xbf" + GOOD,
    ],
)
def test_what_is_no_json_object_is_malformed(line: bytes) -> None:
    assert refused(line) == MALFORMED


@pytest.mark.parametrize("line", [b'{"source":"\xff"}', b"\xff", b'{"source":"\xed\xa0\x80"}', b'{"\xc3":1}'])
def test_bytes_that_are_no_text_are_called_that(line: bytes) -> None:
    assert refused(line) == NOT_UTF8


@pytest.mark.parametrize("raw", [b"1", b"true", b"[]", b"{}", b'["a"]'])
def test_a_dimension_is_text(raw: bytes) -> None:
    assert refused(b'{"source":' + raw + b"}") == bad_type("source", TEXT)
    assert refused(b'{"event_id":' + raw + b"}") == bad_type("event_id", TEXT)


@pytest.mark.parametrize("raw", [b'"1"', b"true", b"[1]", b"{}"])
def test_a_measure_is_a_number(raw: bytes) -> None:
    assert refused(b'{"value":' + raw + b"}") == bad_type("value", NUMBER)


@pytest.mark.parametrize("raw", [b"1", b'"a"', b"[]", b"{}", b"[null]", b'[1,"a"]', b"false"])
def test_an_undeclared_field_is_unknown(raw: bytes) -> None:
    assert refused(b'{"source":"a","other":' + raw + b"}") == unknown_field("other")


def test_an_undeclared_field_that_is_null_is_no_field() -> None:
    assert rows(decode([entry(b'{"other":null}')], SPEC)) == [(0, 0, None, (None,), (None,))]


def test_an_unknown_field_is_shown_so_that_postgres_can_store_it() -> None:
    assert refused(rb'{"a\u0000b":1}').field == "a\\u0000b"
    assert len(refused(b'{"' + b"x" * 10_000 + b'":1}').field) == 80


def test_unknown_fields_can_be_ignored() -> None:
    spec = stream(MINIMAL, unknown_fields="ignore")
    lines = [b'{"source":"a","other":{"deep":[1]}}', b'{"other":"2025-01-01","source":"b"}', b'{"source":5}']
    decoded = decode([entry(*lines)], spec)
    assert [row[3] for row in rows(decoded)] == [("a",), ("b",)]
    assert rejected(decoded.rejections) == [(0, 2, bad_type("source", TEXT))]


@pytest.mark.parametrize(
    ("raw", "micros"),
    [
        (b'"2025-11-21T08:00:00Z"', NOW_US),
        (b'"2025-11-21T09:00:00+01:00"', NOW_US),
        (b'"2025-11-21T02:30:00-05:30"', NOW_US),
        (b'"2025-11-21 08:00:00Z"', NOW_US),
        (b'"2025-11-21T08:00:00.5Z"', NOW_US + 500_000),
        (b'"2025-11-21T08:00:00.123456Z"', NOW_US + 123_456),
        (b'"2025-11-21T08:00:00.123456999Z"', NOW_US + 123_456),
        (b'"1969-12-31T23:59:59.999999001Z"', -1),
        (str(NOW_MS).encode(), NOW_US),
        (b'"2025-11-21t08:00:00z"', NOW_US),
        (b'"2025-11-21t09:00:00.25+01:00"', NOW_US + 250_000),
        (b'"2025-11-21 08:00:00z"', NOW_US),
        (b'"2025-11-21T08:00:00.1234569999999999999Z"', NOW_US + 123_456),
        (b'"1969-12-31T23:59:59.9999999999Z"', -1),
        (b'"3000-01-01T00:00:00.123456789Z"', 32_503_680_000_123_456),
        (b"1763712000000.0", NOW_US),
        (b"1.763712e12", NOW_US),
        (b"1.763712e+12", NOW_US),
        (b"1795780762035.0", 1_795_780_762_035_000),
        (b"1.795780762035e+12", 1_795_780_762_035_000),
        (b"17637120000000e-1", NOW_US),
        (b"-0.0", 0),
        (b"-5", -5000),
        (b"253402300799999", 253_402_300_799_999_000),
        (b"null", None),
    ],
)
def test_a_time_is_text_with_an_offset_or_milliseconds(raw: bytes, micros: int | None) -> None:
    assert moment(raw) == micros


@pytest.mark.parametrize(
    "raw",
    [
        b'"2025-11-21T08:00:00"',
        b'"2025-11-21"',
        b'"2025-02-30T08:00:00Z"',
        b'"2025-11-21T24:00:00Z"',
        b'"2025-11-21T08:00:61Z"',
        b'"2025-11-21T08:00:00.Z"',
        b'"2025-11-21T08:00:00,5Z"',
        b'"2025-11-21T08:00:00.1234567"',
        b'"21 Nov 2025 08:00:00z"',
        b'"10000-01-01T00:00:00Z"',
        b'"now"',
        b'""',
        b'"1763712000000"',
        b"1763712000000.5",
        b"1e-3",
        b"1e300",
        b"253402300800000",
        b"253402300800000.0",
        b"-9223372036854775808",
        b"9223372036854775808",
        b"true",
        b"{}",
    ],
)
def test_other_times_are_refused(raw: bytes) -> None:
    assert refused(b'{"source":"a","ts":' + raw + b"}") == bad_type("ts", TIME)


@pytest.mark.parametrize("raw", ["2016-12-31T23:59:60Z", "2016-12-31t23:59:60.5z", "2017-01-01 00:59:60+01:00"])
def test_a_leap_second_is_called_that(raw: str) -> None:
    assert refused(orjson.dumps({"source": "a", "ts": raw})) == bad_type("ts", LEAP)


def test_numbers_with_a_point_keep_to_the_columnar_way() -> None:
    lines = [b'{"source":"a","ts":%s}' % raw for raw in (b"1763712000000", b"1763712000001.0", b"1.763712e+12")]
    with patch.object(events._Decoder, "_decode_lines", side_effect=AssertionError):
        decoded = decode([entry(*lines)], SPEC)
    assert [row[2] for row in rows(decoded)] == [NOW_US, NOW_US + 1000, NOW_US]


def test_far_and_fine_times_stand_side_by_side() -> None:
    lines = [b'{"ts":"3000-01-01T00:00:00Z"}', b'{"ts":"2025-11-21T08:00:00.123456789Z"}', b'{"ts":"x"}']
    decoded = decode([entry(*lines)], SPEC)
    assert [row[:3] for row in rows(decoded)] == [(0, 0, 32_503_680_000_000_000), (0, 1, NOW_US + 123_456)]
    assert rejected(decoded.rejections) == [(0, 2, bad_type("ts", TIME))]


def test_both_kinds_of_time_stand_side_by_side() -> None:
    entries = [entry(b'{"ts":%d}' % NOW_MS, b'{"ts":"2025-11-21T08:00:00Z"}') for _ in range(200)]
    assert {row[2] for row in rows(decode(entries, SPEC))} == {NOW_US}


def test_lines_that_make_up_for_each_other_are_not_confused() -> None:
    """Two objects on a line and a blank line are two rows of two lines, but not the right ones."""
    decoded = decode([entry(GOOD, GOOD + GOOD, b" ", b'{"source":', b'"b"}', GOOD + GOOD)], SPEC)
    assert [row[:2] for row in rows(decoded)] == [(0, 0)]
    assert [line for _, line, _ in rejected(decoded.rejections)] == [1, 2, 3, 4, 5]


def test_lines_may_end_in_a_carriage_return_or_have_space_around() -> None:
    assert len(decode([entry(GOOD + b"\r", b" " + GOOD, GOOD + b" ")], SPEC)) == 3


def test_one_bad_line_among_ten_thousand_costs_one_line() -> None:
    lines = [event(metric=...) for _ in range(10_000)]
    lines[4321] = b'{"source":'
    decoded = decode([entry(*lines[:4000]), entry(*lines[4000:])], SPEC)
    assert len(decoded) == 9_999
    assert rejected(decoded.rejections) == [(1, 321, MALFORMED)]


def test_a_client_cannot_make_a_column_of_every_name_it_thinks_of() -> None:
    """Inferring the type of 20,000 unknown fields would take gigabytes and half a minute."""
    before = time.process_time()
    decoded = decode([entry(*[b'{"x%d":1}' % number for number in range(20_000)])], SPEC)
    assert decoded.rejections.counts() == {"unknown_field": 20_000}
    assert time.process_time() - before < 5


def test_one_unreadable_time_costs_no_slow_way_for_all() -> None:
    lines = [b'{"ts":"2025-11-21T08:00:00Z"}'] * 200_000
    lines[7] = b'{"ts":"x"}'
    before = time.process_time()
    assert len(decode([entry(*lines)], SPEC)) == 199_999
    assert time.process_time() - before < 1


def test_more_than_a_chunk_is_decoded_in_order() -> None:
    entries = [entry(*[event(metric=..., source="s" * 200, value=number)] * 500) for number in range(100)]
    decoded = decode(entries, SPEC)
    assert [row[0] for row in rows(decoded)] == [number for number in range(100) for _ in range(500)]
    assert decoded.measures["value"].tolist() == [float(number) for number in range(100) for _ in range(500)]
    assert decoded.dimensions["source"].values == ("s" * 200,)
