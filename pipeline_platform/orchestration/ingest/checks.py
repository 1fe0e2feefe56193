"""Asset checks of a stream: do its tables agree, and does it keep up?"""

# No postponed annotations here: Dagster reads them at run time.

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.time_ranges import in_words
from pipeline_platform.orchestration.ingest.assets import events_key, minutes_key
from pipeline_platform.orchestration.resources import CALM, IngestQueue, Warehouse
from pipeline_platform.warehouse.reconcile import Agreement, facts_equal_ledger, freshness, minutes_equal_facts

LOOK_BACK = timedelta(minutes=10)
MAX_LAG = timedelta(minutes=5)
JOB = "check_streams"


def stream_checks(spec: StreamSpec) -> list[dg.AssetChecksDefinition]:
    """The three checks of a stream."""

    @dg.asset_check(
        asset=minutes_key(spec.name),
        name="aggregates_equal_recomputation",
        description=f"The aggregates of the last {in_words(LOOK_BACK)} equal a recomputation from the facts.",
    )
    def aggregates_equal_recomputation(warehouse: Warehouse) -> dg.AssetCheckResult:
        until = datetime.now(UTC)
        return _result(
            minutes_equal_facts(warehouse.engine, spec, _minute(until - LOOK_BACK), _minute(until)), "windows"
        )

    @dg.asset_check(
        asset=events_key(spec.name),
        name="facts_equal_ledger",
        description=f"Facts and dead letters of the last {in_words(LOOK_BACK)} are as many as the ledger says.",
    )
    def facts_agree(warehouse: Warehouse) -> dg.AssetCheckResult:
        return _result(facts_equal_ledger(warehouse.engine, spec, datetime.now(UTC) - LOOK_BACK), "batches")

    @dg.asset_check(
        asset=events_key(spec.name),
        name="fresh",
        description=f"No accepted event has been waiting for more than {MAX_LAG}.",
    )
    def fresh(warehouse: Warehouse, ingest_queue: IngestQueue) -> dg.AssetCheckResult:
        waited = freshness(warehouse.engine, spec)
        position = ingest_queue.queue.position(spec.name)
        # Not the oldest entry: what is settled stays in the queue until the planner trims it, and it may have stopped.
        for entry in ingest_queue.queue.waiting(spec.name, warehouse.ledger.last_planned(spec.name), 1):
            waited = max(waited, datetime.now(UTC) - datetime.fromtimestamp(entry.id.ms / 1000, UTC))
        return dg.AssetCheckResult(
            passed=waited <= MAX_LAG,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"oldest waiting, seconds": waited.total_seconds(), "events in the queue": position.events},
        )

    return [aggregates_equal_recomputation, facts_agree, fresh]


def check_job(specs: Sequence[StreamSpec]) -> Any:
    """One job that runs the checks of all streams."""
    # The rollups' checks too: an asset of a stream is under its name.
    keys = [
        dg.AssetKey(["warehouse", f"{spec.name}_{suffix}"]) for spec in specs for suffix in ("events", "1m", "1h", "1d")
    ]
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.checks_for_assets(*keys),
        description="Compares facts, aggregates and ledger of every stream.",
        executor_def=dg.in_process_executor,
        config=dict(CALM),
    )


def check_schedule() -> dg.ScheduleDefinition:
    """Every ten minutes."""
    return dg.ScheduleDefinition(
        name="check_streams_every_10_minutes",
        job_name=JOB,
        cron_schedule="*/10 * * * *",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )


def _minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def _result(agreement: Agreement, what: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=agreement.holds,
        metadata={f"{what} compared": agreement.compared, "differences": "; ".join(agreement.differences) or "none"},
    )
