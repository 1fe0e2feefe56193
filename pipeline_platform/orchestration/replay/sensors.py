"""The replay sensor: requests a run for each batch of a replay, and again for those that failed."""

# No postponed annotations here: Dagster reads them at run time.

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime

import dagster as dg
import sqlalchemy as sa
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from pipeline_platform.errors import TransientError
from pipeline_platform.orchestration.failures.obsolete import why_gone
from pipeline_platform.orchestration.ingest.planner import Request, RunState, retry
from pipeline_platform.orchestration.ingest.sensors import run_state
from pipeline_platform.orchestration.partition_ranges import tags_of_text
from pipeline_platform.orchestration.resources import CALM, PlanLimits, Warehouse
from pipeline_platform.warehouse.failed_runs import OF_JOB
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform.warehouse.obsolete import FailedPartition, close_partitions
from pipeline_platform.warehouse.replay_batches import split_replay
from pipeline_platform.warehouse.replays import asked_retries, replay_job, retried

INTERVAL = 1
RETRY_TAG = "pipeline/retry"
AT_ONCE = 1  # runs of one stream: ingest wants the workers and the minutes too


Job = dg.JobDefinition | UnresolvedAssetJobDefinition


def replay_sensor(
    jobs: Sequence[dg.JobDefinition], others: Sequence[Job], job_of_asset: Mapping[str, str], limits: PlanLimits
) -> dg.SensorDefinition:
    """One sensor for the replays of all streams, and for the rows of `assets` of `others` that are to be tried again.

    On from the start.
    """
    known = {job.name for job in jobs}
    names = {job.name for job in others}

    @dg.sensor(
        name="replay_sensor",
        jobs=[*jobs, *others],
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests a run for each batch of dead letters, and each failed row, that is to be tried again.",
    )
    def replay(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SensorResult | dg.SkipReason:
        try:
            requests = replay_tick(
                warehouse.engine, known, limits, lambda row: run_state(context.instance, row), datetime.now(UTC)
            )
        except TransientError as error:
            return dg.SkipReason(f"{error} The next tick tries again.")
        again = list(retries(warehouse.engine, context.instance, names, job_of_asset, context.repository_def))
        if not requests and not again:
            return dg.SkipReason("No batch of a replay is due.")
        return dg.SensorResult(run_requests=[*map(_run_request, requests), *again])

    return replay


def retries(
    engine: sa.Engine,
    instance: dg.DagsterInstance,
    jobs: Collection[str],
    job_of_asset: Mapping[str, str],
    repository: dg.RepositoryDefinition | None,
) -> Iterator[dg.RunRequest]:
    """A run for each ETL row that is to be tried again: of its partition, or of the job that failed.

    It is asked for until it is there; Dagster makes one run of a key. What no longer exists is closed instead. Never
    raises TransientError.
    """
    with suppress(TransientError):
        for asked in asked_retries(engine):
            failed = FailedPartition(asked.asset_key, asked.partition_key)
            if repository is not None and (words := why_gone(repository, failed)):
                close_partitions(engine, asked.asset_key, [asked.partition_key], words)
                retried(engine, asked, begun=False)
                continue
            of_job = asked.asset_key.startswith(OF_JOB)
            job = asked.asset_key.removeprefix(OF_JOB) if of_job else job_of_asset.get(asked.asset_key)
            there = instance.get_runs_count(dg.RunsFilter(tags={RETRY_TAG: str(asked.id)}))
            if there or job not in jobs:
                retried(engine, asked, begun=bool(there))
                continue
            tags = {RETRY_TAG: str(asked.id), "pipeline/asset_row": str(asked.asset_id)}
            if asked.partition_key:
                tags |= tags_of_text(asked.partition_key)
            yield dg.RunRequest(run_key=f"retry-{asked.id}", job_name=job, tags=tags)


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
