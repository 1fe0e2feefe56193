"""The bad lines of a batch are found, all of them and no others, and the batch goes on without them."""

from __future__ import annotations

import itertools
import math

import hypothesis.strategies as st
from hypothesis import given

from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.core.events import decode
from pipeline_platform.core.isolation import Bad, all_poison, as_poison, cut, find_bad, without
from pipeline_platform.core.rejections import Reason
from pipeline_platform.core.streams import load_specs
from pipeline_platform.core.validation import validate

SPEC = load_specs()["telemetry"]


def entry(number: int, *lines: bytes) -> Entry:
    return Entry(EntryId(1_763_712_000_000 + number, 0), len(lines), b"".join(line + b"\n" for line in lines))


@given(
    st.integers(0, 300).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, max(n - 1, 0)), max_size=12)))
)
def test_exactly_the_bad_lines_are_found(given: tuple[int, set[int]]) -> None:
    lines, bad = given
    bad = {number for number in bad if number < lines}
    asked = 0

    def trial(start: int, end: int) -> str | None:
        nonlocal asked
        asked += 1
        hit = sorted(bad & set(range(start, end)))
        return f"line {hit[0]}" if hit else None

    found, undecided = find_bad(lines, trial, lambda _: True)
    assert found == [Bad(number, number + 1, f"line {number}") for number in sorted(bad)]
    assert undecided == []
    assert asked <= 1 + 2 * len(bad) * (math.ceil(math.log2(max(lines, 2))) + 1) + len(bad)


def test_what_is_not_decided_when_there_is_no_time_left_is_told_apart_from_what_is_bad() -> None:
    bad = {10, 300, 301, 700}

    def trial(start: int, end: int) -> str | None:
        return "bad" if bad & set(range(start, end)) else None

    found, undecided = find_bad(1000, trial, lambda found: found < 2)
    assert [part.start for part in found] == [10, 300]
    assert undecided[0][0] == 301
    assert undecided[-1][1] == 1000
    assert all(before[1] == after[0] for before, after in itertools.pairwise(undecided))
    assert find_bad(1000, trial, lambda _: False) == ([], [(0, 1000)])


def test_no_line_is_bad_for_one_trial() -> None:
    hiccups = iter([True, True, True, True, False])

    def trial(start: int, end: int) -> str | None:
        return "the machine was out of memory" if next(hiccups, False) else None

    assert find_bad(8, trial, lambda _: True) == ([], [])


def test_a_cut_takes_lines_across_entries() -> None:
    entries = [entry(0, b"a", b"b"), entry(1, b"c"), entry(2, b"d", b"e", b"f")]
    assert [(part.id.ms % 10, part.count, part.data) for part in cut(entries, 1, 5)] == [
        (0, 1, b"b\n"),
        (1, 1, b"c\n"),
        (2, 2, b"d\ne\n"),
    ]
    assert cut(entries, 0, 6) == tuple(entries)
    assert cut(entries, 2, 2) == ()


def test_bad_lines_become_poison_and_the_others_stay_what_they_are() -> None:
    good = b'{"source": "s", "metric": "m", "value": 1}'
    entries = [entry(0, good, b"no json", good), entry(1, good, good)]
    cleaned, messages = without(entries, [Bad(2, 4, "it crashed")])
    assert messages == {(0, 2): "it crashed", (1, 0): "it crashed"}
    valid = validate(decode(cleaned, SPEC), cleaned, SPEC)
    rejections = as_poison(valid.rejections, messages)
    assert len(valid.columns) == 2
    found = [
        (int(e), int(n), rejections.problems[int(k)].reason)
        for e, n, k in zip(rejections.entry, rejections.line, rejections.kind, strict=True)
    ]
    assert found == [(0, 1, Reason.MALFORMED), (0, 2, Reason.POISON), (1, 0, Reason.POISON)]


def test_a_buried_batch_is_all_poison() -> None:
    assert all_poison([entry(0, b"a", b"b"), entry(1, b"c")], "why").counts() == {"poison": 3}
