"""Rejections are collected columnar and come out in the order of the lines."""

from __future__ import annotations

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.core.rejections import Int32s, Problem, Reason, RejectionList
from pipeline_platform_tests.unit.examples import rejected

MALFORMED = Problem(Reason.MALFORMED, "", "broken")
UNKNOWN = Problem(Reason.UNKNOWN_FIELD, "x", "unknown")
MISSING = Problem(Reason.MISSING_FIELD, "value", "missing")
found = st.tuples(st.integers(0, 5), st.integers(0, 50), st.sampled_from([MALFORMED, UNKNOWN, MISSING]))


def int32s(*numbers: int) -> Int32s:
    return np.array(numbers, np.int32)


def test_nothing_rejected_is_nothing() -> None:
    nothing = RejectionList().freeze()
    assert len(nothing) == 0
    assert nothing.counts() == {}
    assert len(RejectionList().freeze(after=nothing)) == 0


@given(st.lists(found), st.lists(found), st.lists(found))
def test_all_that_was_added_comes_out_ordered(
    single: list[tuple[int, int, Problem]],
    many: list[tuple[int, int, Problem]],
    earlier: list[tuple[int, int, Problem]],
) -> None:
    first, second = RejectionList(), RejectionList()
    for entry, line, problem in earlier:
        first.add(entry, line, problem)
    for entry, line, problem in single:
        second.add(entry, line, problem)
    for entry, line, problem in many:
        second.add_many(int32s(entry), int32s(line), problem)
    result = second.freeze(after=first.freeze())
    assert sorted(rejected(result)) == sorted(single + many + earlier)
    assert [pair[:2] for pair in rejected(result)] == sorted(pair[:2] for pair in single + many + earlier)
    assert sum(result.counts().values()) == len(result)


def test_one_problem_of_two_stages_is_listed_once() -> None:
    first, second = RejectionList(), RejectionList()
    first.add(0, 0, MALFORMED)
    second.add(0, 1, UNKNOWN)
    second.add(0, 2, MALFORMED)
    assert second.freeze(after=first.freeze()).problems == (MALFORMED, UNKNOWN)


def test_the_counts_are_by_reason_whatever_the_field() -> None:
    collected = RejectionList()
    collected.add(0, 0, UNKNOWN)
    collected.add(0, 1, UNKNOWN._replace(field="y"))
    collected.add_many(int32s(1, 1), int32s(0, 1), MISSING)
    assert collected.freeze().counts() == {"unknown_field": 2, "missing_field": 2}


def test_adding_no_lines_lists_no_problem() -> None:
    collected = RejectionList()
    collected.add_many(int32s(), int32s(), MISSING)
    assert collected.freeze().problems == ()


def test_as_many_problems_as_lines_do_not_take_quadratic_time() -> None:
    collected = RejectionList()
    for line in range(50_000):
        collected.add(0, line, UNKNOWN._replace(field=f"x{line}"))
    before = time.process_time()
    assert len(collected.freeze().problems) == 50_000
    assert time.process_time() - before < 5
