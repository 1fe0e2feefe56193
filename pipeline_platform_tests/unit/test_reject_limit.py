"""--max-rejected: an upload that is mostly rejected ends before the stream's breaker would open."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.cli.ingest.reasons import because
from pipeline_platform.cli.ingest.reject_limit import RejectCounter, RejectLimit
from pipeline_platform.core.breaker import BreakerLimits, Counts, recent, trips
from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import PermanentError

GOOD = {"source": "a", "metric": "m", "value": 1}
NO_METRIC = {"source": "a", "value": 1}
TEXT = {"source": "a", "metric": "m", "value": "1,5"}
OLD = {"source": "a", "metric": "m", "value": 1, "ts": 0}
UNKNOWN = {"source": "a", "metric": "m", "value": 1, "colour": "red"}


def rows(event: Any, count: int, first: int = 1, problem: str = "") -> list[Row]:
    return [Row(first + at, orjson.dumps(event), problem) for at in range(count)]


@given(
    st.lists(
        st.tuples(st.integers(1, 3000), st.sampled_from([0.0, 0.05, 0.15, 0.25, 0.6, 1.0])), min_size=1, max_size=60
    ),
    st.data(),
)
def test_what_was_sent_never_opens_the_breaker_however_it_is_batched(
    parts: list[tuple[int, float]], data: st.DataObject
) -> None:
    # Given the requests of an upload that were sent before it was ended, put into batches anyhow
    counter, sent = RejectCounter(0.2), list[Counts]()
    for events, share in parts:
        rejected = int(events * share)
        if counter.add(events, rejected) is not None:
            break
        sent.append(Counts(events, rejected))
    edges = sorted({0, len(sent), *data.draw(st.lists(st.integers(0, len(sent)), max_size=10))})
    batches = [
        Counts(sum(each.events for each in sent[start:end]), sum(each.rejected for each in sent[start:end]))
        for start, end in pairwise(edges)
    ]
    # I expect the breaker to stay closed after each of them
    for settled in range(len(batches) + 1):
        assert not trips(recent(reversed(batches[:settled]), BreakerLimits()), BreakerLimits())


@pytest.mark.parametrize(
    ("events", "rejected", "share", "stops"),
    [
        (99, 99, 0.2, False),
        (100, 100, 0.2, True),
        (400, 100, 0.2, True),
        (500, 100, 0.2, False),
        (500, 101, 0.2, True),
        (10_000, 2001, 0.2, True),
        (1000, 500, 0.5, False),
        (1000, 501, 0.5, True),
        (100, 1, 0.0, True),
        (10_000, 10_000, 1.0, False),
    ],
)
def test_the_share_counts_after_500(events: int, rejected: int, share: float, stops: bool) -> None:
    assert (RejectCounter(share).add(events, rejected) is not None) == stops


def test_a_bad_run_behind_many_good_rows_counts() -> None:
    counter = RejectCounter(0.2)
    for _ in range(1000):
        assert counter.add(1000, 0) is None
    assert [counter.add(1000, 1000) for _ in range(3)] == [None, None, Counts(10_000, 3000)]


@pytest.mark.parametrize(
    ("event", "problem", "why"),
    [
        (NO_METRIC, "", "because metric is missing (missing_field)"),
        (TEXT, "", "because value has to be a number (bad_type)"),
        (OLD, "", "because ts is older than the 400 days that are kept (ts_out_of_range)"),
        (UNKNOWN, "", "because the stream declares no field 'colour' (unknown_field)"),
        ([1], "", "because the line is not a JSON object (malformed)"),
        (GOOD, "3 fields, the header has 4", "because of '3 fields, the header has 4' (malformed)"),
    ],
)
def test_the_words_name_the_reason_and_the_first_row(event: Any, problem: str, why: str) -> None:
    limit = RejectLimit(load_specs()["telemetry"], 0.2, "x.csv")
    limit.judge(rows(GOOD, 1000))
    with pytest.raises(PermanentError) as stopped:
        limit.judge([*rows(GOOD, 100, 1001), *rows(NO_METRIC, 1, 1101), *rows(event, 899, 1102, problem)])
    first = 1101 if event is NO_METRIC else 1102
    assert f"most of them {why}, first in line {first}." in str(stopped.value)
    assert "x.csv: 900 of 2,000 rows up to line 2000 break the contract of telemetry" in str(stopped.value)


@pytest.mark.parametrize("event", [NO_METRIC, TEXT, OLD, UNKNOWN])
def test_ten_first_rows_of_which_none_is_good_are_the_files_fault(event: Any) -> None:
    spec = load_specs()["telemetry"]
    assert RejectLimit(spec, 0.2, "x").judge([*rows(event, 11), *rows(GOOD, 1)])
    assert RejectLimit(spec, 1.0, "x").judge(rows(event, 5000))
    with pytest.raises(PermanentError, match="x: 10 of 10 rows up to line 10 break the contract"):
        RejectLimit(spec, 0.2, "x").judge(rows(event, 10))
    one_by_one = RejectLimit(spec, 0.2, "x")
    for number in range(1, 10):
        assert not one_by_one.judge(rows(event, 1, number))
    with pytest.raises(PermanentError, match="x: 10 of 10 rows"):
        one_by_one.judge(rows(event, 1, 10))


@pytest.mark.parametrize(("event", "problem"), [(NO_METRIC, ""), (UNKNOWN, ""), (GOOD, "3 fields, the header has 4")])
@pytest.mark.parametrize("count", [1, 3, 9])
def test_few_rows_wait_until_one_is_good(event: Any, problem: str, count: int) -> None:
    spec = load_specs()["telemetry"]
    limit = RejectLimit(spec, 0.2, "x", skip_bad=True)
    assert not limit.judge(rows(event, count, 1, problem))
    assert limit.judge(rows(GOOD, 1, count + 1))
    limit = RejectLimit(spec, 0.2, "x", skip_bad=True)
    limit.judge(rows(event, count, 1, problem))
    with pytest.raises(PermanentError, match=f"x: {count} of {count} rows up to line {count} break the contract"):
        limit.end()
    # What nobody leaves out is refused by its own name, which says more.
    assert RejectLimit(spec, 0.2, "x").judge(rows(event, count, 1, problem)) == bool(problem)


@pytest.mark.parametrize(
    ("field", "message", "words"),
    [
        ("value", "the field is missing", "because value is missing"),
        ("value", "has to be a number", "because value has to be a number"),
        ("ts", "is older than the 400 days that are kept", "because ts is older than the 400 days that are kept"),
        ("comment", "the stream declares no such field", "because the stream declares no field 'comment'"),
        ("a b", "the stream declares no such field", "because the stream declares no field 'a b'"),
        ("source", "holds a NUL character", "because source holds a NUL character"),
        ("event_id", "an event with this event_id has been loaded already", "because an event with this event_id has"),
        ("", "the line is not valid UTF-8", "because the line is not valid UTF-8"),
        ("", "not CSV: a quote is opened and not closed", "because of 'not CSV: a quote is opened and not closed'"),
    ],
)
def test_every_reason_is_a_clause(field: str, message: str, words: str) -> None:
    assert because(field, message).startswith(words)


@pytest.mark.parametrize(("event", "count"), [(NO_METRIC, 2), (TEXT, 1), (UNKNOWN, 12)])
def test_the_rows_that_become_dead_letters_are_summed_up(event: Any, count: int) -> None:
    limit = RejectLimit(load_specs()["telemetry"], 0.2, "x.csv", skip_bad=True)
    assert limit.summary() == ""
    limit.judge([*rows(GOOD, 1000), *rows(GOOD, 3, 1001, "3 fields, the header has 4")])
    assert limit.summary() == ""  # those are left out
    limit.judge(rows(event, count, 1004))
    said = limit.summary()
    assert said.startswith(f"{count} of {1003 + count:,} rows break the contract of telemetry and become dead letters")
    assert said.endswith("first in line 1004; `pipeline-platform dlq list --stream telemetry` shows them.")
