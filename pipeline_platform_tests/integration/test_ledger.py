"""The ledger: ranges that neither overlap nor leave a gap, and attempts of which only the latest has a say."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pipeline_platform.core.batches import Batch
from pipeline_platform.core.entries import ZERO, EntryId
from pipeline_platform.core.failures import KEPT, Failure, FailureKind, NextStep
from pipeline_platform.warehouse.engine import KEEPALIVE, SERVER_KEEPALIVE
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform.warehouse.load import load
from pipeline_platform_tests.integration.batches import TELEMETRY, entry, event, load_entries, plan, ready, rows

LATER = datetime(2030, 1, 1, tzinfo=UTC)


def test_nothing_is_planned_at_first(ledger: Ledger) -> None:
    assert ledger.last_planned("telemetry") == ZERO
    assert ledger.watermark("telemetry") == ZERO
    assert ledger.unsettled("telemetry") == []
    assert ledger.holding("telemetry", EntryId(1, 0)) is None
    assert ledger.get(1) is None
    assert ledger.totals("telemetry").batches == 0


def test_a_planned_batch_comes_back_as_it_was_cut(ledger: Ledger) -> None:
    (row,) = _plan(ledger, Batch("telemetry", EntryId(5, 3), EntryId(9, 1), 4, 70, 900))
    assert (row.first_id, row.last_id, row.entries, row.events_planned, row.bytes_planned) == (
        EntryId(5, 3),
        EntryId(9, 1),
        4,
        70,
        900,
    )
    assert (row.state, row.attempt, row.requested_at, row.settled) == ("planned", 0, None, False)
    assert ledger.get(row.id) == row
    assert ledger.unsettled("telemetry") == [row]
    assert ledger.last_planned("telemetry") == EntryId(9, 1)
    assert ledger.last_planned("orders") == ZERO


def test_the_largest_entry_ids_of_redis_that_can_come_fit(ledger: Ledger) -> None:
    first, last = EntryId(10**15 - 1, 0), EntryId(10**15 - 1, 2**63 - 1)
    (row,) = _plan(ledger, Batch("telemetry", first, last, 1, 1, 1))
    assert (row.first_id, row.last_id) == (first, last)


def test_ids_are_compared_as_numbers_not_as_text(ledger: Ledger) -> None:
    _plan(ledger, _batch(9, 10), _batch(11, 100))
    assert ledger.last_planned("telemetry") == EntryId(100, 0)
    held = ledger.holding("telemetry", EntryId(50, 7))
    assert held is not None
    assert held.first_id == EntryId(11, 0)


def test_a_second_planner_with_the_same_view_plans_nothing(ledger: Ledger) -> None:
    assert len(_plan(ledger, _batch(1, 5), _batch(6, 9))) == 2
    assert _plan(ledger, _batch(1, 5), _batch(6, 9)) == []


def test_a_second_planner_that_cut_elsewhere_leaves_no_gap(ledger: Ledger) -> None:
    assert len(_plan(ledger, _batch(1, 5))) == 1
    # 4 to 8 overlaps and 9 to 12 alone would leave 6, 7 and 8 to nobody.
    assert _plan(ledger, _batch(1, 3), _batch(4, 8), _batch(9, 12)) == []
    assert ledger.last_planned("telemetry") == EntryId(5, 0)
    assert len(_plan(ledger, _batch(6, 12))) == 1


def test_planners_that_race_cover_each_entry_once(ledger: Ledger) -> None:
    start = threading.Barrier(6)

    def planner(size: int) -> None:
        start.wait()
        while (last := ledger.last_planned("telemetry").ms) < 60:
            _plan(ledger, *(_batch(first, min(first + size, 60)) for first in range(last + 1, 61, size + 1)))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(planner, range(6)))
    covered = [number for row in ledger.unsettled("telemetry") for number in range(row.first_id.ms, row.last_id.ms + 1)]
    assert covered == list(range(1, 61))


def test_streams_are_planned_apart(ledger: Ledger) -> None:
    _plan(ledger, _batch(1, 5))
    assert len(ledger.plan("orders", [_batch(1, 5, "orders")], asset_key="k", job_name="j")) == 1


def test_the_batch_that_holds_an_entry_is_found_and_no_other(ledger: Ledger) -> None:
    first, second = _plan(ledger, _batch(10, 20), _batch(30, 40))
    cases = {9: None, 10: first, 15: first, 20: first, 25: None, 30: second, 40: second, 41: None}
    for number, expected in cases.items():
        assert ledger.holding("telemetry", EntryId(number, 0)) == expected
    assert ledger.holding("telemetry", EntryId(20, 1)) is None
    assert ledger.holding("orders", EntryId(15, 0)) is None


def test_the_watermark_stays_below_the_first_unsettled_batch(engine: sa.Engine, ledger: Ledger) -> None:
    requests = [entry(number, event()) for number in range(3)]
    planned = [plan(engine, TELEMETRY, request) for request in requests]
    assert ledger.watermark("telemetry") == requests[0].id
    load(engine, TELEMETRY, ready(TELEMETRY, planned[1], (requests[1],)))
    assert ledger.watermark("telemetry") == requests[0].id
    ledger.request(planned[0].id, 1)
    _fail(ledger, planned[0].id, 1)
    assert ledger.watermark("telemetry") == requests[0].id
    load(engine, TELEMETRY, ready(TELEMETRY, planned[0], (requests[0],)))
    assert ledger.watermark("telemetry") == requests[2].id
    load(engine, TELEMETRY, ready(TELEMETRY, planned[2], (requests[2],)))
    assert ledger.watermark("telemetry") == requests[2].id.next()


def test_an_attempt_is_requested_once(ledger: Ledger) -> None:
    (row,) = _plan(ledger, _batch(1, 5))
    start = threading.Barrier(4)

    def ask(_: int) -> bool:
        start.wait()
        return ledger.request(row.id, 1)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(ask, range(4))) == [False, False, False, True]
    after = _get(ledger, row.id)
    assert after.attempt == 1
    assert after.requested_at is not None
    assert not ledger.request(row.id, 3)


def test_a_settled_batch_is_not_requested_started_or_failed(engine: sa.Engine, ledger: Ledger) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    before = rows(engine, "select * from assets")
    assert not ledger.request(1, 1)
    assert not _fail(ledger, 1, 0)
    started = ledger.start(1, 1, "late-run")
    assert started is not None
    assert started.settled
    assert rows(engine, "select * from assets") == before


def test_a_run_that_begins_is_noted_with_its_attempt(ledger: Ledger) -> None:
    (row,) = _plan(ledger, _batch(1, 5))
    ledger.request(row.id, 1)
    started = ledger.start(row.id, 1, "run-1")
    assert started is not None
    assert (started.run_id, started.attempt, started.state) == ("run-1", 1, "planned")
    assert started.started_at is not None


def test_a_run_of_an_older_attempt_does_not_take_over(ledger: Ledger) -> None:
    (row,) = _plan(ledger, _batch(1, 5))
    ledger.request(row.id, 1)
    ledger.request(row.id, 2)
    ledger.start(row.id, 2, "run-2")
    old = ledger.start(row.id, 1, "run-1")
    assert old is not None
    assert (old.run_id, old.attempt) == ("run-2", 2)


def test_the_failure_of_an_older_attempt_is_ignored(ledger: Ledger) -> None:
    (row,) = _plan(ledger, _batch(1, 5))
    ledger.request(row.id, 1)
    ledger.request(row.id, 2)
    assert not _fail(ledger, row.id, 1)
    assert _get(ledger, row.id).state == "planned"
    assert _fail(ledger, row.id, 2)
    after = _get(ledger, row.id)
    assert (after.state, after.not_before) == ("failed", LATER)


def test_the_next_attempt_clears_the_run_and_keeps_the_error_to_read(engine: sa.Engine, ledger: Ledger) -> None:
    (row,) = _plan(ledger, _batch(1, 5))
    ledger.request(row.id, 1)
    ledger.start(row.id, 1, "run-1")
    _fail(ledger, row.id, 1)
    assert ledger.request(row.id, 2)
    after = _get(ledger, row.id)
    assert (after.state, after.run_id, after.started_at) == ("planned", None, None)
    assert after.error_message == "it broke"


def test_a_transient_failure_leaves_the_batch_planned_any_other_failed(ledger: Ledger) -> None:
    for kind in FailureKind:
        (row,) = _plan(ledger, _batch(10 * len(ledger.unsettled("telemetry")) + 1, 5))
        assert ledger.fail(row.id, Failure(kind, "E", "m"), not_before=LATER)
        assert _get(ledger, row.id).state == ("planned" if kind is FailureKind.TRANSIENT else "failed")
        assert _get(ledger, row.id).not_before == LATER


def test_failures_and_runs_are_remembered_up_to_a_bound(engine: sa.Engine, ledger: Ledger) -> None:
    (row,) = _plan(ledger, _batch(1, 5))
    for attempt in range(1, 61):
        assert ledger.request(row.id, attempt)
        ledger.start(row.id, attempt, f"run-{attempt}")
        ledger.start(row.id, attempt, f"run-{attempt}")
        failure = Failure(FailureKind.TRANSIENT, "E", f"failure {attempt}", attempt=attempt, mode=NextStep.CAREFUL)
        ledger.retrying(row.id, replace(failure, final=False))
        if attempt < 60:
            ledger.fail(row.id, failure, not_before=LATER)
    kept = _get(ledger, row.id).failures
    assert len(kept) == KEPT
    assert (kept[-1].attempt, kept[-1].final, kept[-2].attempt) == (60, False, 59)
    assert kept[-1].mode is NextStep.CAREFUL
    assert kept[-1].at
    ((runs, retries),) = rows(engine, "select run_ids, op_retries from assets")
    assert runs == [f"run-{number}" for number in range(11, 61)]
    assert retries == 1


def test_a_split_batch_becomes_two_without_a_gap(ledger: Ledger) -> None:
    (row,) = _plan(ledger, Batch("telemetry", EntryId(1, 0), EntryId(9, 0), 3, 30, 300))
    first, second = (
        Batch("telemetry", EntryId(1, 0), EntryId(4, 0), 1, 10, 100),
        Batch("telemetry", EntryId(7, 0), EntryId(9, 0), 2, 20, 200),
    )
    assert not ledger.split(row, first, second), "it has not failed"
    ledger.fail(row.id, Failure(FailureKind.POISON, "E", "m"), not_before=LATER)
    assert ledger.split(_get(ledger, row.id), first, second)
    halves = ledger.unsettled("telemetry")
    assert [(half.first_id, half.last_id, half.entries, half.next_step) for half in halves] == [
        (EntryId(1, 0), EntryId(4, 0), 1, NextStep.CAREFUL),
        (EntryId(7, 0), EntryId(9, 0), 2, NextStep.CAREFUL),
    ]
    assert halves[1].attempt == 0
    assert ledger.last_planned("telemetry") == EntryId(9, 0)


def test_a_batch_is_halved_whatever_kind_of_failure_came_last(ledger: Ledger) -> None:
    (row,) = _plan(ledger, _batch(1, 4))
    ledger.request(row.id, 1)
    for kind in (FailureKind.POISON, FailureKind.POISON, FailureKind.TRANSIENT):
        ledger.fail(row.id, Failure(kind, "E", "m", attempt=1, mode=NextStep.CAREFUL), not_before=LATER)
    row = _get(ledger, row.id)
    assert (row.state, row.next_step) == ("planned", NextStep.SPLIT)
    assert ledger.split(row, _batch(1, 2), _batch(3, 4))
    assert [half.next_step for half in ledger.unsettled("telemetry")] == [NextStep.PLAIN, NextStep.PLAIN]


def test_a_failing_stream_raises_one_alert_and_its_load_resolves_it(engine: sa.Engine, ledger: Ledger) -> None:
    row = plan(engine, TELEMETRY, entry(0, event()))
    for attempt in range(1, 7):
        assert ledger.request(row.id, attempt)
        ledger.fail(row.id, Failure(FailureKind.TRANSIENT, "E", "away", attempt=attempt), not_before=LATER)
        assert rows(engine, "select times from alerts") == ([(attempt - 3,)] if attempt > 3 else [])
    load(engine, TELEMETRY, ready(TELEMETRY, row, [entry(0, event())]))
    ((key, resolved),) = rows(engine, "select key, resolved_at is not null from alerts")
    assert (key, resolved) == ("failing/telemetry", True)


@pytest.mark.parametrize("message", ["x" * 5000, "nul \0 and \ud800", "", "%s %(x)s :name"])
def test_any_failure_can_be_written(ledger: Ledger, message: str) -> None:
    (row,) = _plan(ledger, _batch(1, 5))
    assert ledger.fail(row.id, Failure(FailureKind.POISON, "E" * 500, message), not_before=LATER)
    written = _get(ledger, row.id).error_message
    assert written is not None
    assert len(written) <= 2000


def test_the_totals_are_the_sums_of_what_was_loaded(engine: sa.Engine, ledger: Ledger) -> None:
    load_entries(engine, TELEMETRY, entry(0, event(), event(value=-1), b"x"))
    load_entries(engine, TELEMETRY, entry(1, event()))
    plan(engine, TELEMETRY, entry(2, event()))
    totals = ledger.totals("telemetry")
    assert (totals.batches, totals.events_read, totals.events_loaded) == (2, 4, 2)
    assert (totals.events_negative, totals.events_rejected) == (1, 1)
    assert totals.last_loaded_at is not None
    assert datetime.now(UTC) - totals.last_loaded_at < timedelta(minutes=1)


def test_counts_that_do_not_add_up_are_refused_by_the_table(engine: sa.Engine) -> None:
    plan(engine, TELEMETRY, entry(0, event()))
    with engine.begin() as connection, pytest.raises(sa.exc.IntegrityError, match="assets_counts_add_up"):
        connection.execute(sa.text("update assets set state = 'loaded', events_read = 2, events_loaded = 1"))


def _batch(first: int, last: int, stream: str = "telemetry") -> Batch:
    return Batch(stream, EntryId(first, 0), EntryId(last, 0), last - first + 1, last - first + 1, 100)


def _plan(ledger: Ledger, *batches: Batch) -> Sequence[LedgerRow]:
    return ledger.plan("telemetry", batches, asset_key="warehouse/telemetry_events", job_name="ingest_telemetry")


def _get(ledger: Ledger, batch_id: int) -> LedgerRow:
    row = ledger.get(batch_id)
    assert row is not None
    return row


def _fail(ledger: Ledger, batch_id: int, attempt: int) -> bool:
    failure = Failure(FailureKind.POISON, "E", "it broke", attempt=attempt, run_id="run")
    return ledger.fail(batch_id, failure, not_before=LATER)


def test_a_lost_machine_is_noticed_by_both_sides_within_half_a_minute(engine: sa.Engine) -> None:
    """Otherwise the transaction of a host that is gone would hold its batch's lock for hours."""
    query = "select name, setting from pg_settings where name like 'tcp_keepalives%' or name = 'tcp_user_timeout'"
    told = dict(rows(engine, query))
    assert {name: int(value) for name, value in told.items()} == SERVER_KEEPALIVE
    with engine.connect() as connection:
        driver = connection.connection.driver_connection
        assert driver is not None
        asked = driver.info.get_parameters()
    assert {name: int(asked[name]) for name in KEEPALIVE} == KEEPALIVE
