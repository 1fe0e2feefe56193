"""Dead letters as requests again, and cut into batches; filters and their documents."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.entries import EntryId
from pipeline_platform.core.events import decode
from pipeline_platform.core.letters import DeadEvent, Waiting, cut_letters, rebuild
from pipeline_platform.core.lines import lines_of
from pipeline_platform.core.rejections import Problem, Reason
from pipeline_platform.core.streams import load_specs
from pipeline_platform.core.validation import validate
from pipeline_platform.errors import PermanentError
from pipeline_platform.warehouse.dead_letters import LetterFilter

SPEC = load_specs()["telemetry"]
PLACES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), unique=True, max_size=30)
GOOD = '{"source":"s","metric":"m","value":1}'


def letter(number: int, entry: int, line: int, payload: str = GOOD) -> DeadEvent:
    """A letter with a reason of its own."""
    return DeadEvent(number, EntryId(1_763_712_000_000 + entry, 0), line, payload, "bad_type", "value")


@given(PLACES, st.randoms())
def test_each_letter_stands_once_in_its_own_request_in_the_order_of_lines(places: list[Any], rng: Any) -> None:
    letters = [letter(n, entry, line, f'{{"value":{n}}}') for n, (entry, line) in enumerate(places, 1)]
    rng.shuffle(letters)
    rebuilt = rebuild(letters)
    found = [
        (entry.id, int(rebuilt.ids[rebuilt.firsts[e] + n]), line.decode())
        for e, entry in enumerate(rebuilt.entries)
        for n, line in enumerate(lines_of(entry.data))
    ]
    wanted = [(each.entry, each.id, each.payload) for each in sorted(letters, key=lambda each: (each.entry, each.line))]
    assert found == wanted
    assert len({entry.id for entry in rebuilt.entries}) == len(rebuilt.entries)
    assert all(entry.count == len(lines_of(entry.data)) for entry in rebuilt.entries)


@given(PLACES, st.data())
def test_the_refused_letters_are_those_of_the_bad_lines(places: list[Any], data: st.DataObject) -> None:
    bad = {place for place in places if data.draw(st.booleans())}
    letters = [letter(n, place[0], place[1], "no json" if place in bad else GOOD) for n, place in enumerate(places, 1)]
    rebuilt = rebuild(letters)
    valid = validate(decode(rebuilt.entries, SPEC), rebuilt.entries, SPEC)
    wanted = {n for n, place in enumerate(places, 1) if place in bad}
    assert set(rebuilt.refused(valid.rejections).tolist()) == wanted
    assert len(valid.columns) == len(places) - len(wanted)


def test_what_the_edit_does_not_apply_to_is_refused_for_its_old_reason_and_never_decoded() -> None:
    letters = [letter(1, 0, 0), letter(2, 0, 4, '{"value":"x"}'), letter(3, 0, 7, GOOD.replace("1", "2"))]
    rebuilt = rebuild(letters, Edit.parse({"set": {"value": "value * 2"}}))
    assert lines_of(rebuilt.entries[0].data)[1] == b"0"
    valid = validate(decode(rebuilt.entries, SPEC), rebuilt.entries, SPEC)
    assert valid.columns.measures["value"].tolist() == [2.0, 4.0]
    rejections = rebuilt.with_unedited(valid.rejections)
    assert rebuilt.refused(rejections).tolist() == [2]
    assert rejections.problems == (Problem(Reason.BAD_TYPE, "value", "the edit does not apply: 'x' is not a number"),)


def test_a_payload_is_always_one_line() -> None:
    rebuilt = rebuild([letter(1, 0, 0, '{"source":"s",\n"metric":"m","value":1}'), letter(2, 0, 1, "")])
    assert len(lines_of(rebuilt.entries[0].data)) == rebuilt.entries[0].count == 2


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.booleans(), st.integers(0, 50)), max_size=40),
    st.integers(1, 10),
    st.integers(1, 100),
)
def test_batches_hold_every_letter_once_within_their_bounds(parts: list[Any], most: int, size: int) -> None:
    waiting = [Waiting(n, s, p, EntryId(1, n), b) for n, (s, p, b) in enumerate(sorted(parts, key=lambda x: x[:2]))]
    batches = list(cut_letters(waiting, max_letters=most, max_bytes=size))
    assert [each for batch in batches for each in batch] == waiting
    for batch in batches:
        assert len({(each.stream, each.poison) for each in batch}) == 1
        assert len(batch) <= most
        assert len(batch) == 1 or sum(each.bytes for each in batch) <= size


def test_a_filter_survives_its_document() -> None:
    assert LetterFilter().document() == {}
    which = LetterFilter(
        ("telemetry",),
        ("bad_type", "poison"),
        ("open",),
        ("value",),
        "telemetry.1-0",
        "red",
        7,
        datetime(2026, 1, 31, 8, tzinfo=UTC),
        datetime(2026, 2, 1, tzinfo=UTC),
        (1, 2),
    )
    assert LetterFilter.from_document(which.document()) == which


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "A filter is an object"),
        ({"stream": "telemetry"}, "no 'stream'; it has batch_id"),
        ({"streams": "telemetry"}, "streams is a list of texts"),
        ({"reasons": ["bad"]}, "'bad' is no reason of dead letters; there are malformed"),
        ({"states": ["closed"]}, "'closed' is no state"),
        ({"receipt": 1}, "receipt is a text"),
        ({"batch_id": "1"}, "batch_id is a whole number"),
        ({"batch_id": True}, "batch_id is a whole number"),
        ({"ids": [1.5]}, "ids is a list of whole numbers"),
        ({"ids": [2**63]}, "ids is a list of whole numbers"),
        ({"ids": list(range(10_001))}, "At most 10000 ids"),
        ({"since": "yesterday"}, "since is an RFC 3339 time"),
        ({"until": 5}, "until is an RFC 3339 time"),
        ({"since": "2026-01-31T08:00:00"}, "since needs an offset"),
    ],
)
def test_a_filter_that_is_none_says_why(document: object, message: str) -> None:
    with pytest.raises(PermanentError, match=message):
        LetterFilter.from_document(document)
