"""The columnar way and the line-by-line way of decoding mean the same, whatever the lines hold."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_platform.core import events
from pipeline_platform.core.entries import Entry
from pipeline_platform.core.events import decode
from pipeline_platform.core.rejections import Problem
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform_tests.unit.examples import BOTH, Row, entry, rejected, rows, stream

Outcome = tuple[list[tuple[Row, str | None]], list[tuple[int, int, Problem]]]
UNIQUE = BOTH + "unique_event_id: true"


def outcome(entries: Sequence[Entry], spec: StreamSpec) -> Outcome:
    decoded = decode(entries, spec)
    ids = decoded.event_ids.to_pylist() if decoded.event_ids is not None else [None] * len(decoded)
    whole = zip(rows(decoded), ids, strict=True)
    return sorted(whole, key=lambda row: row[0][:2]), rejected(decoded.rejections)


def columnar(entries: Sequence[Entry], spec: StreamSpec) -> Outcome:
    """As many lines as possible through the columnar reader."""
    with patch.object(events, "FEW_STUMBLES", 10_000):
        return outcome(entries, spec)


def line_by_line(entries: Sequence[Entry], spec: StreamSpec) -> Outcome:
    """No line through the columnar reader."""
    with patch.object(events._Decoder, "_read", lambda *_, **__: None):
        return outcome(entries, spec)


plain = st.sampled_from([b'"s1"', b'"s2"', '"grün"'.encode(), b'"2025-11-21T08:00:00Z"', rb'"a\"b\nc\\"', b'"{}[],:"'])
texts = plain | st.text(st.characters(exclude_categories=["Cs"]), max_size=8).map(orjson.dumps)
floats = st.floats(allow_nan=False, allow_infinity=False).map(orjson.dumps)
numbers = (
    floats | st.integers(-(2**63), 2**64 - 1).map(orjson.dumps) | st.sampled_from([b"-0", b"1e3", b"1E-9", b"5e-324"])
)
times = st.one_of(
    st.integers(-(2**63), 2**64 - 1).map(orjson.dumps),
    st.integers(0, 2 * 10**12).map(orjson.dumps),
    st.builds(
        lambda day, second, fraction, zone: f'"2025-02-{day}{second}{fraction}{zone}"'.encode(),
        st.sampled_from(["01", "28", "30"]),
        st.sampled_from(["T23:59:58", "T23:59:58", "t23:59:58", " 23:59:60"]),
        st.sampled_from(["", ".5", ".123", ".123456", ".1234567", ".123456789", ".1234567890", "."]),
        st.sampled_from(["Z", "+02:00", "-0530", "+14", "", "z", " Z", "+25:00"]),
    ),
    st.sampled_from(
        [
            b'"3000-01-01T00:00:00Z"',
            b'"0001-01-01T00:00:00Z"',
            b'"2025"',
            b'""',
            b"1.5",
            b"1e12",
            b"true",
            b"1.763712e+12",
        ]
    ),
)
odd = st.sampled_from(
    [
        b"null",
        b"true",
        b"[]",
        b"{}",
        b'[1,"a"]',
        b'{"a":{"b":[]}}',
        b'"1"',
        b"1" + b"0" * 30,
        b"1" + b"0" * 400,
        b"1e400",
        b"-1e400",
        b"NaN",
        b"-Infinity",
        rb'"\ud800"',
        rb'"\udfff"',
        rb'"\ud83d\ude00"',
        rb'"\u0000"',
        rb'"\x"',
        b'"\xff"',
        b'"\t"',
        b"01",
        b"",
        b"[" * 200 + b"]" * 200,
        b"[" * 2000 + b"]" * 2000,
    ]
)
quiet = st.sampled_from([b"null", b"1", b'"x"', b"[]", b'{"a":{"b":[null,1.5]}}', b'"2025-11-21T08:00:00Z"', b"{}"])
malformed = st.sampled_from(
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"1",
        b'"a"',
        b"{",
        b"}",
        b"{}}",
        b'{"source":"a"',
        b'{"a":1,}',
        b"{}{}",
        b"\xff",
        b"//",
    ]
)


def lines(unknown: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[bytes]]:
    """Lines of which most decode."""
    good = st.fixed_dictionaries(
        {b"source": texts, b"value": numbers}, optional={b"metric": texts, b"ts": times, b"event_id": texts}
    )
    some = st.fixed_dictionaries(
        {},
        optional={
            b"source": texts | odd,
            b"metric": texts | odd,
            b"event_id": texts | odd,
            b"value": numbers | odd,
            b"weight": numbers | odd,
            b"ts": times | odd,
            b"other": unknown,
            "größe".encode(): unknown,
            b"": unknown,
        },
    )
    pairs = st.one_of(good, good, some).flatmap(lambda event: st.permutations(list(event.items())))
    twice = st.tuples(texts | odd, texts | odd, st.sampled_from([b"source", b"event_id"])).map(
        lambda both: [(both[2], both[0]), (both[2], both[1])]
    )
    objects = (pairs | twice).map(lambda event: b"{" + b",".join(b'"' + k + b'":' + v for k, v in event) + b"}")
    spaced = st.tuples(st.sampled_from([b"", b"", b"", b" "]), objects, st.sampled_from([b"", b"", b"", b"\r", b" "]))
    return st.lists(st.one_of(objects, objects, spaced.map(b"".join), malformed), min_size=1, max_size=12)


def requests(unknown: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[Entry]]:
    return st.lists(lines(unknown).map(lambda raw: entry(*raw)), max_size=5)


def check(entries: list[Entry], spec: StreamSpec) -> None:
    fast = columnar(entries, spec)
    every_line = [(number, line) for number, one in enumerate(entries) for line in range(one.count)]
    assert sorted([row[:2] for row, _ in fast[0]] + [rejection[:2] for rejection in fast[1]]) == every_line
    assert fast == line_by_line(entries, spec)
    assert fast == outcome(entries, spec)


@settings(max_examples=150, deadline=None)
@given(requests(odd | quiet))
def test_both_ways_agree_and_no_line_is_lost_or_doubled(entries: list[Entry]) -> None:
    check(entries, stream())


@settings(max_examples=100, deadline=None)
@given(requests(odd | quiet))
def test_both_ways_agree_on_the_event_ids(entries: list[Entry]) -> None:
    check(entries, stream(UNIQUE))


@settings(max_examples=60, deadline=None)
@given(requests(quiet))
def test_both_ways_agree_when_unknown_fields_are_ignored(entries: list[Entry]) -> None:
    check(entries, stream(unknown_fields="ignore"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b"")), min_size=1, max_size=8))
def test_any_bytes_are_rejected_one_by_one(raw: list[bytes]) -> None:
    check([entry(*raw)], stream())


@settings(max_examples=30, deadline=None)
@given(requests(odd), st.integers(1, 400))
def test_the_size_of_a_chunk_changes_nothing(entries: list[Entry], size: int) -> None:
    whole = outcome(entries, stream())
    with patch.object(events, "CHUNK_BYTES", size):
        assert outcome(entries, stream()) == whole


@pytest.mark.parametrize("few", [0, 3, 64])
def test_many_lines_with_bad_ones_anywhere_agree(few: int) -> None:
    raw = [b'{"source":"s","value":%d}' % number for number in range(300)]
    for at in (0, 1, 57, 149, 150, 299):
        raw[at] = b"bad"
    entries = [entry(*raw), entry(b"bad"), entry(raw[2])]
    with patch.object(events, "FEW_STUMBLES", few):
        assert outcome(entries, stream()) == line_by_line(entries, stream())
