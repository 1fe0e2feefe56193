"""The replay sensor: requests a run for each batch of a replay, and again for those that failed."""

# No postponed annotations here: Dagster reads them at run time.

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime

import dagster as dg
import sqlalchemy as sa

from pipeline_platform.errors import TransientError
from pipeline_platform.orchestration.ingest.planner import Request, RunState, retry
from pipeline_platform.orchestration.ingest.sensors import run_state
from pipeline_platform.orchestration.resources import CALM, PlanLimits, Warehouse
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform.warehouse.replay_batches import split_replay
from pipeline_platform.warehouse.replays import replay_job

INTERVAL = 1
AT_ONCE = 1  # runs of one stream: ingest wants the workers and the minutes too


def replay_sensor(jobs: Sequence[dg.JobDefinition], limits: PlanLimits) -> dg.SensorDefinition:
    """One sensor for the replays of all streams; on from the start."""
    known = {job.name for job in jobs}

    @dg.sensor(
        name="replay_sensor",
        jobs=jobs,
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a run for each batch of dead letters that is to be replayed.",
    )
    def replay(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SensorResult | dg.SkipReason:
        try:
            requests = replay_tick(
                warehouse.engine, known, limits, lambda row: run_state(context.instance, row), datetime.now(UTC)
            )
        except TransientError as error:
            return dg.SkipReason(f"{error} The next tick tries again.")
        if not requests:
            return dg.SkipReason("No batch of a replay is due.")
        return dg.SensorResult(run_requests=[_run_request(request) for request in requests])

    return replay


def replay_tick(
    engine: sa.Engine,
    jobs: Collection[str],
    limits: PlanLimits,
    run_state: Callable[[LedgerRow], RunState],
    now: datetime,
) -> tuple[Request, ...]:
    """The attempts to request now, each noted in the ledger before. Without a replay it costs one indexed query."""
    ledger = Ledger(engine)
    busy: dict[str, int] = {}
    due: list[Request] = []
    for row in ledger.unsettled(None, "replay"):
        if replay_job(row.stream) not in jobs:
            continue  # its stream is not declared any more: it waits for the stream's file
        if row.requested_at is None and row.not_before is None:
            due.append(Request(row, 1))
        elif (again := retry(row, ledger, limits, run_state, now, lambda row: split_replay(engine, row))) is not None:
            due.append(again)
        elif row.not_before is None:
            busy[row.stream] = busy.get(row.stream, 0) + 1
    granted = []
    for request in due:
        stream = request.row.stream
        if busy.get(stream, 0) < AT_ONCE and ledger.request(request.row.id, request.attempt):
            busy[stream] = busy.get(stream, 0) + 1
            granted.append(request)
    return tuple(granted)


def _run_request(request: Request) -> dg.RunRequest:
    row, attempt = request.row, request.attempt
    work = {"batch_id": row.id, "attempt": attempt, "mode": request.mode.value}
    return dg.RunRequest(
        run_key=f"replay-{row.id}-{attempt}",  # Dagster never repeats one: the attempt has to be in it
        job_name=replay_job(row.stream),
        run_config={**CALM, "ops": {"read_dead_letters": {"config": work}}},
        tags={
            "pipeline/batch_id": str(row.id),
            "pipeline/attempt": str(attempt),
            "pipeline/mode": request.mode.value,
            "pipeline/replay_id": str(row.replay_id),
        },
    )
