"""--max-rejected: an upload that is mostly rejected ends before the stream's breaker would open."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline_platform.cli.files.event_rows import Row
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
        (NO_METRIC, "", "metric the field is missing (missing_field)"),
        (TEXT, "", "value has to be a number (bad_type)"),
        (OLD, "", "ts is older than the 400 days that are kept (ts_out_of_range)"),
        (UNKNOWN, "", "colour the stream declares no such field (unknown_field)"),
        ([1], "", "the line is not a JSON object (malformed)"),
        (GOOD, "3 fields, the header has 4", "3 fields, the header has 4 (malformed)"),
    ],
)
def test_the_words_name_the_reason_and_the_first_row(event: Any, problem: str, why: str) -> None:
    limit = RejectLimit(load_specs()["telemetry"], 0.2, "x.csv")
    limit.judge(rows(GOOD, 1000))
    with pytest.raises(PermanentError) as stopped:
        limit.judge([*rows(GOOD, 100, 1001), *rows(NO_METRIC, 1, 1101), *rows(event, 899, 1102, problem)])
    first = 1101 if event is NO_METRIC else 1102
    assert f"most of them because {why}, first in line {first}." in str(stopped.value)
    assert "x.csv: 900 of 2,000 rows up to line 2000 break the contract of telemetry" in str(stopped.value)


@pytest.mark.parametrize("event", [NO_METRIC, TEXT, OLD, UNKNOWN])
def test_ten_first_rows_of_which_none_is_good_are_the_files_fault(event: Any) -> None:
    spec = load_specs()["telemetry"]
    RejectLimit(spec, 0.2, "x").judge(rows(event, 9))
    RejectLimit(spec, 0.2, "x").judge([*rows(event, 11), *rows(GOOD, 1)])
    RejectLimit(spec, 1.0, "x").judge(rows(event, 5000))
    with pytest.raises(PermanentError, match="x: 10 of 10 rows up to line 10 break the contract"):
        RejectLimit(spec, 0.2, "x").judge(rows(event, 10))
    one_by_one = RejectLimit(spec, 0.2, "x")
    for number in range(1, 10):
        one_by_one.judge(rows(event, 1, number))
    with pytest.raises(PermanentError, match="x: 10 of 10 rows"):
        one_by_one.judge(rows(event, 1, 10))
