"""The hours and days of a stream as partitioned assets, from its spec alone."""

# No postponed annotations here: Dagster reads them at run time.

from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from pipeline_platform.core.rollups import Grain, Span
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.orchestration.etl_runs import booked
from pipeline_platform.orchestration.ingest.assets import OWNERS, minutes_key
from pipeline_platform.orchestration.resources import CALM, Warehouse
from pipeline_platform.warehouse.etl_ledger import EtlCounts
from pipeline_platform.warehouse.rollups import RolledUp, roll_up

SPAN = {Grain.HOUR: 24, Grain.DAY: 31}  # windows in one transaction


class RollupConfig(dg.Config):
    """How a rollup is made."""

    recompute: bool = False


def rollup_key(stream: str, grain: Grain) -> dg.AssetKey:
    """The asset key of a stream's rollup."""
    return dg.AssetKey(["warehouse", f"{stream}_{grain.value}"])


def partitions_of(spec: StreamSpec, grain: Grain, now: datetime) -> dg.TimeWindowPartitionsDefinition:
    """Every window from the stream's retention to now, in UTC, which knows no other hours and days.

    Older events are refused, so that older windows cannot change; they stay in the tables.
    """
    start = Grain.DAY.floor(now - timedelta(days=spec.policies.retention_days + 1))
    if grain is Grain.HOUR:
        return dg.HourlyPartitionsDefinition(start_date=start, timezone="UTC")
    return dg.DailyPartitionsDefinition(start_date=start, timezone="UTC")


def rollup_assets(spec: StreamSpec, now: datetime) -> list[dg.AssetsDefinition]:
    """`<stream>_1h` over the minutes and `<stream>_1d` over the hours."""
    return [
        _rollup(spec, Grain.HOUR, minutes_key(spec.name), now),
        _rollup(spec, Grain.DAY, rollup_key(spec.name, Grain.HOUR), now),
    ]


def _rollup(spec: StreamSpec, grain: Grain, upstream: dg.AssetKey, now: datetime) -> dg.AssetsDefinition:
    key = rollup_key(spec.name, grain)

    @dg.asset(
        key=key,
        deps=[upstream],
        partitions_def=partitions_of(spec, grain, now),
        backfill_policy=dg.BackfillPolicy.single_run(),
        pool=f"rollup_{spec.name}",
        group_name=spec.name,
        kinds={"postgres"},
        owners=OWNERS,
        description=f"{spec.name} by series and {grain.unit} (UTC); late events correct it within seconds. "
        f"Read it as the view `{key.path[-1]}`.",
        metadata={"dagster/table_name": f"warehouse.public.{key.path[-1]}"},
    )
    def rollup(context: dg.AssetExecutionContext, warehouse: Warehouse, config: RollupConfig) -> dg.MaterializeResult:  # type: ignore[type-arg]
        window = context.partition_time_window
        span = Span(window.start.astimezone(UTC), window.end.astimezone(UTC))
        with booked(context, warehouse, key, context.partition_keys) as booking:
            parts = _parts(span, grain)
            done = [roll_up(warehouse.engine, spec, grain, part, recompute=config.recompute) for part in parts]
            booking.counts.update(_counts(done, grain))
        return dg.MaterializeResult(metadata=_metadata(done, recompute=config.recompute))

    return rollup


def _parts(span: Span, grain: Grain) -> list[Span]:
    """The span in transactions that hold up a load for no more than a moment."""
    step = SPAN[grain] * grain.width
    parts, start = [], span.start
    while start < span.end:
        parts.append(Span(start, min(start + step, span.end)))
        start += step
    return parts


def _counts(done: list[RolledUp], grain: Grain) -> dict[str | None, EtlCounts]:
    """By partition key, the events of its window."""
    form = "%Y-%m-%d-%H:%M" if grain is Grain.HOUR else "%Y-%m-%d"
    return {
        f"{start:{form}}": EtlCounts(read=events, first=start, last=start + grain.width)
        for each in done
        for start, events in each.by_window.items()
    }


def _metadata(done: list[RolledUp], *, recompute: bool) -> dict[str, Any]:
    return {
        "dagster/row_count": sum(each.rows for each in done),
        "windows with events": sum(each.windows for each in done),
        "events": sum(each.events for each in done),
        "windows corrected": sum(each.corrected for each in done),
        "from": "facts" if recompute else "finer windows",
    }


def rollup_job(spec: StreamSpec, grain: Grain) -> Any:
    """The job whose runs roll up one range of windows each."""
    return dg.define_asset_job(
        job_name(spec.name, grain),
        selection=dg.AssetSelection.assets(rollup_key(spec.name, grain)).without_checks(),
        description=f"Rolls {spec.name} up by {grain.unit}. The rollup sensor requests what loads have marked.",
        executor_def=dg.in_process_executor,
        config=dict(CALM),
        tags={"pipeline/stream": spec.name},
        run_tags={"pipeline/stream": spec.name, "dagster-celery/queue": "etl"},
    )


def job_name(stream: str, grain: Grain) -> str:
    """The name of a stream's rollup job."""
    return f"rollup_{stream}_{grain.value}"
