"""The ingest sensor of a stream: asks the planner and requests the runs it decided on."""

# No postponed annotations here: Dagster reads them at run time.

import time
from datetime import UTC, datetime, timedelta

import dagster as dg

from pipeline_platform.core.batches import Pace, spend
from pipeline_platform.core.entries import Receipt
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PlatformError, TransientError
from pipeline_platform.orchestration.cursors import fields, kept
from pipeline_platform.orchestration.ingest.assets import events_key, job_name
from pipeline_platform.orchestration.ingest.planner import Request, RunState, tick
from pipeline_platform.orchestration.ingest.waiting import cursor_of, wait_for_work
from pipeline_platform.orchestration.resources import CALM, IngestQueue, PlanLimits, Warehouse
from pipeline_platform.orchestration.runtime.launcher import WarmCeleryRunLauncher
from pipeline_platform.warehouse.ledger_rows import LedgerRow

PAUSED_SECONDS = 1.0
STARTS_WITHIN = timedelta(seconds=10)  # a run that has not started by then is asked after
_WAITING = {dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING}


def ingest_sensor(spec: StreamSpec, limits: PlanLimits) -> dg.SensorDefinition:
    """Plans the batches of a stream and requests a run for each; on from the start."""

    @dg.sensor(
        name=f"ingest_{spec.name}_sensor",
        job_name=job_name(spec.name),
        minimum_interval_seconds=limits.sensor_interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Cuts what waits in the queue of {spec.name} into exact batches and requests a run for each.",
    )
    def ingest(
        context: dg.SensorEvaluationContext, warehouse: Warehouse, ingest_queue: IngestQueue
    ) -> dg.SensorResult | dg.SkipReason:
        queue, ledger = ingest_queue.queue, warehouse.ledger
        pace = kept(context, lambda text: Pace.read(fields(text)), Pace(limits.pace.burst, 0.0))
        try:
            lingered = wait_for_work(spec.name, queue, ledger, limits, pace)
            decided = tick(
                spec.name,
                queue,
                ledger,
                warehouse.breakers,
                limits,
                lambda row: run_state(context.instance, row),
                datetime.now(UTC),
                asset_key="/".join(events_key(spec.name).path),
                job_name=job_name(spec.name),
            )
        except TransientError as error:
            time.sleep(1.0)  # do not hammer a server that is away
            return dg.SkipReason(f"{error} The next tick tries again; what was accepted stays in the queue.")
        except PlatformError:
            time.sleep(2.0)  # somebody has to act, and sees it on the tick
            raise
        if decided.alarm:
            context.log.error(decided.alarm)
        if decided.paused:
            time.sleep(PAUSED_SECONDS)  # what waits would end every other wait at once
        if not decided.requests:
            return dg.SkipReason(decided.alarm or decided.note)
        return dg.SensorResult(
            run_requests=[_run_request(spec, request) for request in decided.requests],
            cursor=cursor_of(spend(pace, time.time(), decided.charged, limits.pace), lingered, decided.note),
        )

    return ingest


def _run_request(spec: StreamSpec, request: Request) -> dg.RunRequest:
    row, attempt = request.row, request.attempt
    work = {"batch_id": row.id, "attempt": attempt, "mode": request.mode.value}
    return dg.RunRequest(
        # Dagster never repeats a run_key, not even that of a failed run: the attempt has to be in it.
        run_key=f"{spec.name}-{row.id}-{attempt}",
        run_config={**CALM, "ops": {f"ingest_{spec.name}_batch": {"config": work}}},
        tags={
            "pipeline/batch_id": str(row.id),
            "pipeline/attempt": str(attempt),
            "pipeline/mode": request.mode.value,
            "pipeline/first_receipt": str(Receipt(spec.name, row.first_id)),
            "pipeline/last_receipt": str(Receipt(spec.name, row.last_id)),
        },
    )


def run_state(instance: dg.DagsterInstance, row: LedgerRow) -> RunState:
    """What became of the run of the row's latest attempt, by its tags.

    A run that has not started is as good as none: Dagster lets it wait for a day, the planner only for so long. Should
    it start after all, the ledger tells it that a later attempt has been requested.
    """
    tags = {"pipeline/batch_id": str(row.id), "pipeline/attempt": str(row.attempt)}
    runs = instance.get_runs(dg.RunsFilter(tags=tags), limit=1)
    if not runs or runs[0].status in _WAITING:
        return RunState.ABSENT
    if runs[0].status == dg.DagsterRunStatus.SUCCESS:
        return RunState.SUCCEEDED
    if runs[0].status == dg.DagsterRunStatus.CANCELED:
        return RunState.CANCELED
    ended = runs[0].status == dg.DagsterRunStatus.FAILURE or _never_starts(instance, row, runs[0])
    return RunState.ENDED if ended else RunState.ALIVE


def _never_starts(instance: dg.DagsterInstance, row: LedgerRow, run: dg.DagsterRun) -> bool:
    """Whether the run was lost on its way to a process, which Dagster would wait for until its start timeout."""
    launcher = instance.run_launcher
    if run.status is not dg.DagsterRunStatus.STARTING or not isinstance(launcher, WarmCeleryRunLauncher):
        return False
    if row.requested_at is None or datetime.now(UTC) - row.requested_at < STARTS_WITHIN or not launcher.is_lost(run):
        return False
    instance.report_run_failed(run, "The process or the worker that had taken the run died before it could start.")
    return True
