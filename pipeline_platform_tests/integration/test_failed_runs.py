"""The safety net: every failed run is in `assets`, also one that never started, once, and within seconds."""

# No postponed annotations here: Dagster reads them at run time.

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._core.test_utils import create_run_for_test

from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.orchestration.failures import capture as capturing
from pipeline_platform.orchestration.failures.capture import Captured, capture
from pipeline_platform.orchestration.failures.sensors import failed_runs_sensor
from pipeline_platform.orchestration.ingest.planner import RunState
from pipeline_platform.orchestration.partition_ranges import RANGE_END, RANGE_START
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.etl_ledger import EtlLedger
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform_tests.integration.batches import rows
from pipeline_platform_tests.integration.planning import LIMITS, World
from pipeline_platform_tests.unit.examples import EDITED_CURSORS

PLACE = "2026-01-01T00:00:00+00:00"
FAILURE, CANCELED = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED
JOB_ROWS = (
    "select run_id, job_name, error_kind, error_class, error_message from assets where starts_with(asset_key, 'job/')"
)


@dg.op
def divides_by_zero() -> None:
    1 / 0  # noqa: B018


@dg.job(executor_def=dg.in_process_executor)
def broken_job() -> None:
    divides_by_zero()


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def requested(world: World, batches: int) -> list[dict[str, str]]:
    """Batches whose first attempt was requested: the tags of their runs."""
    world.post(batches)
    requests = world.tick(replace(LIMITS, max_events=1, in_flight=batches)).requests
    assert len(requests) == batches
    return [
        {"pipeline/batch_id": str(each.row.id), "pipeline/attempt": "1", "pipeline/mode": "plain"} for each in requests
    ]


def look(instance: dg.DagsterInstance, world: World, after: datetime | None = None) -> Captured:
    """One look."""
    return capture(instance, world.engine, after, datetime.now(UTC))


def test_two_hundred_failed_runs_are_captured_within_seconds(instance: dg.DagsterInstance, world: World) -> None:
    for tags in requested(world, 100):
        create_run_for_test(instance, job_name="ingest_t", status=FAILURE, tags=tags)
    for number in range(100):
        create_run_for_test(instance, job_name=f"job_{number % 3}", status=CANCELED if number % 2 else FAILURE)
    began = time.monotonic()
    found = look(instance, world)
    assert time.monotonic() - began < 10
    assert (found.batches, found.runs, found.seen) == (100, 100, 200)
    counted = rows(world.engine, "select kind, state, error_kind, count(*) from assets group by 1, 2, 3 order by 1, 3")
    etl = [("etl", "failed", "canceled", 50), ("etl", "failed", "lost", 50)]
    assert counted == [*etl, ("ingest", "failed", "lost", 100)]
    # Seen again, nothing is written again: neither from the cursor nor from the beginning.
    before = rows(world.engine, "select id, failures from assets order by id")
    for cursor in (found.until, None):
        again = look(instance, world, cursor)
        assert (again.batches, again.runs, again.seen) == (0, 0, 200)
    assert rows(world.engine, "select id, failures from assets order by id") == before


def test_more_runs_than_a_page_are_all_captured(
    instance: dg.DagsterInstance, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capturing, "PAGE", 7)
    for _ in range(60):
        create_run_for_test(instance, job_name="nightly", status=FAILURE)
    cursor, ticks = None, 0
    while len(rows(world.engine, JOB_ROWS)) < 60:
        cursor, ticks = look(instance, world, cursor).until, ticks + 1
        assert ticks < 5
    assert len({row[0] for row in rows(world.engine, JOB_ROWS)}) == 60


def test_runs_that_changed_in_one_instant_do_not_hold_up_the_others(
    instance: dg.DagsterInstance, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capturing, "PAGE", 3)
    runs = [create_run_for_test(instance, job_name="nightly", status=FAILURE) for _ in range(12)]
    storage: Any = instance._run_storage
    moment = datetime.now(UTC).replace(tzinfo=None) - timedelta(minutes=5)
    with storage.connect() as connection:
        for run in runs[:9]:
            connection.execute(
                sa.text("update runs set update_timestamp = :at where run_id = :id"), {"at": moment, "id": run.run_id}
            )
    cursor = None
    for _ in range(4):
        cursor = look(instance, world, cursor).until
    assert len(rows(world.engine, JOB_ROWS)) == 12


def test_a_run_that_never_started_says_so_and_its_batch_goes_on(instance: dg.DagsterInstance, world: World) -> None:
    (tags,) = requested(world, 1)
    run = create_run_for_test(instance, job_name="ingest_t", status=dg.DagsterRunStatus.NOT_STARTED, tags=tags)
    alone = create_run_for_test(instance, job_name="maintain", status=dg.DagsterRunStatus.NOT_STARTED)
    assert look(instance, world).seen == 0
    instance.report_run_failed(run, "The broker cannot be reached.")
    instance.report_run_canceled(alone)
    assert look(instance, world).batches == 1
    row = world.ledger.get(1)
    assert row is not None
    assert (row.state, row.run_id, row.error_message) == (
        "failed",
        run.run_id,
        "The run ended without recording an outcome. The broker cannot be reached.",
    )
    assert [(each.kind, each.error_class, each.run_id) for each in row.failures] == [
        (FailureKind.LOST, "RunNotStarted", run.run_id)
    ]
    assert [each[:4] for each in rows(world.engine, JOB_ROWS)] == [
        (alone.run_id, "maintain", "canceled", "RunCanceled")
    ]
    world.now = datetime.now(UTC) + timedelta(minutes=1)
    (again,) = world.tick().requests
    assert (again.row.id, again.attempt) == (1, 2)


def test_a_failed_run_of_a_range_of_partitions_says_which(instance: dg.DagsterInstance, world: World) -> None:
    tags = {RANGE_START: "2026-01-01", RANGE_END: "2026-01-03"}
    create_run_for_test(instance, job_name="rollup_telemetry_1d", status=FAILURE, tags=tags)
    look(instance, world)
    query = "select asset_key, partition_key from assets"
    assert rows(world.engine, query) == [("job/rollup_telemetry_1d", "2026-01-01...2026-01-03")]


def test_the_op_that_failed_is_named_with_what_it_raised(instance: dg.DagsterInstance, world: World) -> None:
    result = broken_job.execute_in_process(instance=instance, raise_on_error=False)
    look(instance, world)
    assert rows(world.engine, JOB_ROWS) == [
        (result.run_id, "broken_job", "permanent", "ZeroDivisionError", "divides_by_zero: division by zero")
    ]
    assert rows(world.engine, "select count(*) from assets_failed where run_id = 'x' or kind = 'etl'") == [(1,)]


@pytest.mark.parametrize(("status", "kind"), [(FAILURE, "lost"), (CANCELED, "canceled")])
def test_partitions_whose_run_was_killed_are_lost_or_canceled_not_planned_for_ever(
    instance: dg.DagsterInstance, world: World, status: dg.DagsterRunStatus, kind: str
) -> None:
    book = EtlLedger(world.engine)
    killed = create_run_for_test(instance, job_name="prices_candles", status=status)
    row = book.begin("prices/candles", ["2024-01-01|a:b", "2024-01-02|a:b"], killed.run_id, "prices_candles")
    other = book.begin("prices/daily", ["2024-01-01"], killed.run_id, "prices_candles")
    book.finish(other, {})
    # It was between two tries of its op, and waited.
    book.retrying(row.id, Failure(FailureKind.TRANSIENT, "E", "away", run_id=killed.run_id, final=False))
    assert look(instance, world).runs == 0
    states = "select asset_key, state, error_kind, attempt from assets order by asset_key, partition_key"
    failed = [("prices/candles", "failed", kind, 1)] * 2
    assert rows(world.engine, states) == [*failed, ("prices/daily", "loaded", None, 1)]
    assert rows(world.engine, "select count(*) from alerts") == [(0,)]  # the first time it is no news
    notes = "select distinct jsonb_array_length(failures), failures -> 0 ->> 'run_id' from assets_failed"
    assert rows(world.engine, notes) == [(2, killed.run_id)]
    # Seen again, nothing is written again; another run takes them up, and what is seen of the first one is old news.
    assert look(instance, world).batches == 0
    again = book.begin("prices/candles", ["2024-01-02|a:b"], "run-2", "prices_candles")
    assert (again.attempt, again.id) == (2, row.id + 1)
    assert look(instance, world).batches == 0
    book.finish(again, {})
    assert rows(world.engine, states)[:2] == [failed[0], ("prices/candles", "loaded", kind, 2)]


@pytest.mark.parametrize("first", ["planner", "net"])
@pytest.mark.parametrize(
    ("status", "state", "kind"),
    [(FAILURE, RunState.ENDED, FailureKind.LOST), (CANCELED, RunState.CANCELED, FailureKind.CANCELED)],
)
def test_planner_and_net_record_an_attempt_once(
    instance: dg.DagsterInstance,
    world: World,
    first: str,
    status: dg.DagsterRunStatus,
    state: RunState,
    kind: FailureKind,
) -> None:
    (tags,) = requested(world, 1)
    run = create_run_for_test(instance, job_name="ingest_t", status=status, tags=tags)
    world.runs[(1, 1)] = state
    actions: list[Callable[[], object]] = [world.tick, lambda: look(instance, world)]
    for act in actions if first == "planner" else reversed(actions):
        act()
    row = world.ledger.get(1)
    assert row is not None
    assert [each.kind for each in row.failures] == [kind]
    # Whoever was first: the row leads to the run, and the run to the row.
    assert rows(world.engine, "select run_id, run_ids from assets") == [(run.run_id, [run.run_id])]
    assert look(instance, world).runs == 0


def test_what_a_run_said_itself_is_not_overwritten(instance: dg.DagsterInstance, world: World) -> None:
    (tags,) = requested(world, 1)
    run = create_run_for_test(instance, job_name="ingest_t", status=FAILURE, tags=tags)
    Ledger(world.engine).start(1, 1, run.run_id)
    said = Failure(FailureKind.PERMANENT, "PermanentError", "no right to write", attempt=1, run_id=run.run_id)
    assert world.ledger.fail(1, said, not_before=world.now)
    assert (look(instance, world).batches, look(instance, world).runs) == (0, 0)
    row = world.ledger.get(1)
    assert row is not None
    assert [failure.error_class for failure in row.failures] == ["PermanentError"]


def test_a_failed_run_of_an_attempt_before_changes_nothing(instance: dg.DagsterInstance, world: World) -> None:
    (tags,) = requested(world, 1)
    create_run_for_test(instance, job_name="ingest_t", status=FAILURE, tags=tags)
    assert world.ledger.request(1, 2)
    assert look(instance, world).batches == 0
    row = world.ledger.get(1)
    assert row is not None
    assert (row.state, row.attempt, row.failures) == ("planned", 2, ())


def test_a_run_started_by_hand_that_was_killed_is_told_in_its_batch(instance: dg.DagsterInstance, world: World) -> None:
    requested(world, 1)
    run = create_run_for_test(instance, job_name="ingest_t", status=FAILURE)
    world.ledger.start(1, 1, run.run_id)
    found = look(instance, world)
    assert (found.batches, found.runs) == (1, 0)


def test_the_sensor_keeps_its_place_while_the_warehouse_is_away(
    instance: dg.DagsterInstance, world: World, warehouse_url: str
) -> None:
    create_run_for_test(instance, job_name="nightly", status=FAILURE)
    sensor = failed_runs_sensor()
    away = Warehouse(loader_url="postgresql://nobody@127.0.0.1:1/none", owner_url="postgresql://x@127.0.0.1:1/none")
    with dg.build_sensor_context(
        instance, resources={"warehouse": away}, cursor="2026-01-01T00:00:00+00:00"
    ) as context:
        skipped: Any = sensor(context)
        assert "next tick looks again" in str(skipped.skip_message)
        assert context.cursor == PLACE
    here = Warehouse(loader_url=warehouse_url, owner_url=warehouse_url)
    # Without a place, and with one that somebody has edited, the last day is looked at.
    for place, found in ((None, 1), *((edited, 0) for edited in EDITED_CURSORS)):
        with dg.build_sensor_context(instance, resources={"warehouse": here}, cursor=place) as context:
            skipped = sensor(context)
            assert f"Looked at 1 failed runs; new to the ledger: 0 of batches, {found}" in str(skipped.skip_message)
            assert datetime.fromisoformat(context.cursor or "").year >= 2026
    engine = connect(warehouse_url)
    assert len(rows(engine, JOB_ROWS)) == 1
    engine.dispose()
