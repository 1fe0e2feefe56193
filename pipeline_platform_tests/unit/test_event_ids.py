"""Which events of a batch have their id to themselves."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_platform.core.event_ids import MAX_LENGTH, EventIds, claim_of, joined, judge
from pipeline_platform.core.events import decode
from pipeline_platform.core.rejections import Reason
from pipeline_platform.core.transforms import drop_negatives
from pipeline_platform.core.validation import Validated, validate
from pipeline_platform_tests.unit.examples import BOTH, NOW_US, entry, event, rejected, stream

SPEC = stream(BOTH + "unique_event_id: true")
PERIOD = 10


def ids(*events: tuple[int, int, int, str]) -> EventIds:
    """Ids of (entry, line, moment, id)."""
    entries, lines, moments, values = zip(*events, strict=True) if events else ((), (), (), ())
    return EventIds(
        np.array(entries, np.int32),
        np.array(lines, np.int32),
        np.array(moments, np.int64),
        pa.array(values, pa.string()),
    )


def validated(*lines: bytes) -> Validated:
    entries = [entry(*lines)]
    return validate(decode(entries, SPEC), entries, SPEC)


def problems(**fields: object) -> list[tuple[Reason, str]]:
    return [(problem.reason, problem.field) for _, _, problem in rejected(validated(event(**fields)).rejections)]


def test_the_ids_go_with_the_events_that_keep_the_contract() -> None:
    result = validated(event(event_id="a"), b"bad", event(event_id="b", colour=1), event(event_id="ü" * MAX_LENGTH))
    assert result.columns.ids is not None
    assert result.columns.ids.values.to_pylist() == ["a", "ü" * MAX_LENGTH]
    assert result.columns.ids.line.tolist() == [0, 3]
    assert result.columns.ids.counts_from_us.tolist() == [NOW_US, NOW_US]


def test_the_ids_of_negatives_are_kept_apart() -> None:
    left = drop_negatives(validated(event(event_id="a"), event(event_id="b", value=-1)).columns, SPEC)
    assert left.columns.ids is not None
    assert left.dropped_ids is not None
    assert (left.columns.ids.values.to_pylist(), left.dropped_ids.values.to_pylist()) == (["a"], ["b"])


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (..., Reason.MISSING_FIELD),
        (None, Reason.MISSING_FIELD),
        ("", Reason.OUT_OF_RANGE),
        ("x" * (MAX_LENGTH + 1), Reason.OUT_OF_RANGE),
        ("a\0b", Reason.MALFORMED),
        (5, Reason.BAD_TYPE),
        (["a"], Reason.BAD_TYPE),
    ],
)
def test_an_id_is_text_of_bounded_length(value: object, reason: Reason) -> None:
    assert problems(event_id=value) == [(reason, "event_id")]


def test_a_stream_that_does_not_ask_for_ids_carries_none() -> None:
    entries = [entry(event(event_id="a"), event())]
    decoded = decode(entries, stream())
    assert decoded.event_ids is None
    assert validate(decoded, entries, stream()).columns.ids is None


def test_ids_are_claimed_in_the_order_of_their_bytes_each_from_its_first_event() -> None:
    claim = claim_of(ids((1, 0, 7, "ü"), (0, 1, 5, "z"), (0, 0, 5, "B"), (2, 0, 9, "z"), (1, 1, 7, "a")))
    assert claim.values.to_pylist() == ["B", "a", "z", "ü"]
    assert claim.first_us.tolist() == [5, 7, 5, 7]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), max_size=20),
    st.dictionaries(st.sampled_from("abc"), st.integers(-15, 40)),
    st.randoms(use_true_random=False),
    st.integers(0, 20),
)
def test_an_id_goes_to_the_first_that_finds_it_free(
    wanted: list[tuple[int, str]], held: dict[str, int], dice: object, split: int
) -> None:
    """Against the rule an event at a time; `held` is when others' events with an id were received."""
    ordered = [(number, 0, moment, value) for number, (moment, value) in enumerate(sorted(wanted))]
    shuffled = ordered.copy()
    dice.shuffle(shuffled)  # type: ignore[attr-defined]
    asked = joined(ids(*shuffled[:split]), ids(*shuffled[split:]))
    claim = claim_of(asked)
    names = claim.values.to_pylist()
    free_from = [
        first if name not in held or first >= held[name] + PERIOD else held[name] + PERIOD
        for name, first in zip(names, claim.first_us.tolist(), strict=True)
    ]
    verdict = judge(asked, claim, np.array(free_from, np.int64), PERIOD)
    taken, kept = dict(held), set()
    given_away = {
        name: first
        for name, first, free in zip(names, claim.first_us.tolist(), free_from, strict=True)
        if free == first
    }
    for number, _, moment, value in ordered:
        if value not in taken or moment >= taken[value] + PERIOD:
            taken[value] = moment
            kept.add(number)
    assert {shuffled[at][0] for at in np.flatnonzero(verdict.keep)} == kept
    moved = {names[at]: moment for at, moment in zip(verdict.moved.tolist(), verdict.moved_us.tolist(), strict=True)}
    assert held | given_away | moved == taken
