"""Totals that need not add up the whole ledger, and rows of the ledger that have been kept for long enough."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.warehouse.etl_ledger import EtlCounts, EtlLedger
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_retention import purge_batches, purge_etl
from pipeline_platform.warehouse.ledger_totals import fold_totals
from pipeline_platform.warehouse.replays import Replay, begin
from pipeline_platform_tests.integration.batches import (
    TELEMETRY,
    WIDE,
    entry,
    event,
    execute,
    load_entries,
    plan,
    rows,
    wide,
)
from pipeline_platform_tests.integration.letters import ALL, Replays, refuse

DAYS_90 = timedelta(days=90)
STREAM = "telemetry"


@pytest.fixture
def before() -> datetime:
    """90 days ago."""
    return datetime.now(UTC) - DAYS_90


def age(engine: sa.Engine, days: float = 100.0) -> None:
    """Makes everything in the ledger so old."""
    older = f"- interval '{days} days'"
    columns = ("planned_at", "requested_at", "started_at", "failed_at", "not_before", "loaded_at")
    execute(engine, f"update assets set {', '.join(f'{name} = {name} {older}' for name in columns)}")


def ids(engine: sa.Engine) -> list[int]:
    """The rows that there are."""
    return [row[0] for row in rows(engine, "select id from assets order by id")]


def replay(engine: sa.Engine, edit: Edit | None = None) -> Replay:
    """Replays every open letter."""
    return Replays(engine).finish(begin(engine, ALL, edit, requested_by="test", streams=(STREAM,)))


def folded(engine: sa.Engine) -> list[tuple[object, ...]]:
    """What is in the sums of the stream."""
    return rows(engine, "select through_id, batches, events_read from ledger_totals where stream = 'telemetry'")


def test_a_fold_changes_no_sum_however_often(engine: sa.Engine, ledger: Ledger) -> None:
    for number in range(3):
        load_entries(engine, TELEMETRY, entry(number, event(), event(value=-1), b"x"))
    age(engine, 1)
    load_entries(engine, TELEMETRY, entry(3, event()))
    sums = ledger.totals(STREAM)
    assert (sums.batches, sums.events_read, sums.events_loaded, sums.events_rejected) == (4, 10, 4, 3)
    assert fold_totals(engine, STREAM) == 3  # the fourth is too young
    assert folded(engine) == [(3, 3, 9)]
    assert ledger.totals(STREAM) == sums
    assert fold_totals(engine, STREAM) is None
    age(engine, 1)
    assert fold_totals(engine, STREAM) == 4
    assert folded(engine) == [(4, 4, 10)]
    later = ledger.totals(STREAM)
    assert (later.batches, later.events_read, later.events_rejected) == (4, 10, 3)


def test_a_stream_without_batches_has_nothing_to_fold(engine: sa.Engine, ledger: Ledger) -> None:
    assert fold_totals(engine, STREAM) is None
    assert folded(engine) == []
    assert ledger.totals(STREAM).batches == 0
    load_entries(engine, WIDE, entry(0, wide(a=1.0)))
    age(engine, 1)
    assert fold_totals(engine, STREAM) == 1  # or its totals would search all of the others' batches
    assert folded(engine) == [(1, 0, 0)]
    assert ledger.totals(STREAM).batches == 0
    assert ledger.totals("wide").batches == 1


def test_a_fold_stops_before_a_batch_that_is_not_settled(engine: sa.Engine, ledger: Ledger) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    waiting = plan(engine, TELEMETRY, entry(1, event()))
    load_entries(engine, TELEMETRY, entry(2, event()))
    age(engine, 1)
    assert fold_totals(engine, STREAM) == 1
    assert fold_totals(engine, STREAM) is None
    assert ledger.totals(STREAM).events_loaded == 2
    execute(
        engine,
        "update assets set state = 'loaded', events_read = 1, events_loaded = 1, loaded_at = now() where id = :id",
        id=waiting.id,
    )
    assert fold_totals(engine, STREAM) == 3
    assert ledger.totals(STREAM).events_loaded == 3


def test_folds_at_once_count_a_batch_once(engine: sa.Engine, ledger: Ledger) -> None:
    for number in range(20):
        load_entries(engine, TELEMETRY, entry(number, event()))
    age(engine, 1)
    with ThreadPoolExecutor(6) as pool:
        ends = list(pool.map(lambda _: fold_totals(engine, STREAM), range(6)))
    assert sorted(ends, key=str) == [20, *[None] * 5]
    assert folded(engine) == [(20, 20, 20)]
    assert ledger.totals(STREAM).events_loaded == 20


def test_a_replay_after_the_fold_is_in_the_totals(engine: sa.Engine, ledger: Ledger) -> None:
    refuse(engine, range(1, 11))
    age(engine, 1)
    fold_totals(engine, STREAM)
    assert ledger.totals(STREAM).events_rejected == 10
    assert replay(engine, Edit.parse({"merge": {"colour": None}})).passed == 10
    for _ in range(2):
        totals = ledger.totals(STREAM)
        assert (totals.batches, totals.events_read, totals.events_loaded, totals.events_rejected) == (1, 10, 10, 0)
        age(engine, 1)
        fold_totals(engine, STREAM)
    assert folded(engine) == [(2, 1, 10)]


def test_old_loaded_batches_go_with_their_receipts_and_the_totals_stay(
    engine: sa.Engine, ledger: Ledger, before: datetime
) -> None:
    for number in range(7):
        load_entries(engine, TELEMETRY, entry(number, event()))
    age(engine)
    assert purge_batches(engine, STREAM, before) == 0  # nothing is folded yet
    fold_totals(engine, STREAM)
    sums = ledger.totals(STREAM)
    assert purge_batches(engine, STREAM, before, step=2) == 6
    assert ids(engine) == [7]
    assert rows(engine, "select batch_id from batch_receipts") == [(7,)]
    assert ledger.totals(STREAM) == sums
    assert ledger.last_planned(STREAM) == entry(6).id
    assert ledger.watermark(STREAM) == entry(6).id.next()
    assert ledger.holding(STREAM, entry(2).id) is None
    load_entries(engine, TELEMETRY, entry(7, event()))
    assert ledger.totals(STREAM).events_loaded == 8


def test_young_batches_stay(engine: sa.Engine, before: datetime) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    load_entries(engine, TELEMETRY, entry(1, event()))
    age(engine, 89)
    fold_totals(engine, STREAM)
    assert purge_batches(engine, STREAM, before) == 0


def test_what_is_behind_an_unsettled_batch_stays_for_the_queue_still_has_it(
    engine: sa.Engine, ledger: Ledger, before: datetime
) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    plan(engine, TELEMETRY, entry(1, event()))
    load_entries(engine, TELEMETRY, entry(2, event()))
    load_entries(engine, TELEMETRY, entry(3, event()))
    age(engine)
    fold_totals(engine, STREAM)
    assert purge_batches(engine, STREAM, before) == 1
    assert ids(engine) == [2, 3, 4]
    assert ledger.events_planned(STREAM, entry(1).id, entry(9).id) == 3


@pytest.mark.parametrize("state", ["open", "replaying", "replayed", "discarded"])
def test_a_batch_stays_as_long_as_it_has_a_dead_letter(engine: sa.Engine, before: datetime, state: str) -> None:
    load_entries(engine, TELEMETRY, entry(0, event(), b"x"))
    load_entries(engine, TELEMETRY, entry(1, event()))
    execute(engine, "update dead_letters set state = :state", state=state)
    age(engine)
    fold_totals(engine, STREAM)
    assert purge_batches(engine, STREAM, before) == 0
    execute(engine, "delete from dead_letters")
    assert purge_batches(engine, STREAM, before) == 1


def test_a_batch_that_was_given_up_stays(engine: sa.Engine, before: datetime) -> None:
    load_entries(engine, TELEMETRY, entry(0, event()))
    load_entries(engine, TELEMETRY, entry(1, event()))
    execute(engine, "update assets set state = 'dead', failed_at = now() where id = 1")
    age(engine)
    fold_totals(engine, STREAM)
    assert purge_batches(engine, STREAM, before) == 0


def test_a_replay_s_batch_goes_after_its_letters(engine: sa.Engine, ledger: Ledger, before: datetime) -> None:
    refuse(engine, range(1, 4))
    load_entries(engine, TELEMETRY, entry(5, event()))
    assert replay(engine).failed == 3
    execute(engine, "update dead_letters set state = 'discarded'")
    age(engine)
    fold_totals(engine, STREAM)
    sums = ledger.totals(STREAM)
    assert purge_batches(engine, STREAM, before) == 0
    execute(engine, "delete from dead_letters")
    assert purge_batches(engine, STREAM, before) == 2
    assert rows(engine, "select kind from assets") == [("ingest",)]
    assert rows(engine, "select count(*) from replays") == [(1,)]
    assert ledger.totals(STREAM) == sums


def test_old_etl_rows_go_whether_they_were_loaded_or_failed(engine: sa.Engine, before: datetime) -> None:
    book = EtlLedger(engine)
    book.finish(book.begin("prices/quotes", (), "run-1", "prices"), {None: EtlCounts(read=1)})
    failed = book.begin("prices/quotes", (), "run-2", "prices")
    book.fail(
        failed.id,
        Failure(FailureKind.PERMANENT, "Planted", "as planned", attempt=1, run_id="run-2"),
        not_before=datetime.now(UTC),
    )
    age(engine)
    under_way = book.begin("prices/candles", ["2024-01-01|a:b"], "run-3", "prices")
    young = book.begin("prices/daily", (), "run-4", "prices")
    book.finish(young, {})
    assert purge_etl(engine, before, step=1) == 2
    assert ids(engine) == [under_way.id, young.id]
