"""The schedules of prices. Cron times are UTC: no hour is skipped or repeated when clocks change.

They are on where a source is enabled; the Dagster UI switches each of them. A tick does nothing while the run of an
earlier one is still in progress.
"""

# No postponed annotations here: Dagster reads them at run time.

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from pipeline_platform.core.price_partitions import BETWEEN
from pipeline_platform.orchestration.partition_ranges import range_tags
from pipeline_platform.orchestration.prices.keys import CANDLES, DAILY, ORDERS_USD, QUOTES
from pipeline_platform.orchestration.prices.partitions import instrument_keys
from pipeline_platform.orchestration.resources import CALM
from pipeline_platform.orchestration.under_way import run_under_way
from pipeline_platform.sources.plan import PricePlan

QUOTES_JOB, CANDLES_JOB, DAYS_JOB = "prices_quotes", "prices_candles", "prices_days"
PRICE_JOBS = {QUOTES: QUOTES_JOB, CANDLES: CANDLES_JOB, DAILY: DAYS_JOB, ORDERS_USD: DAYS_JOB}
TAGS = {"dagster-celery/queue": "etl"}
ONLY_GAPS = {**CALM, "ops": {"prices__candles": {"config": {"only_gaps": True}}}}


@dataclass(frozen=True)
class PriceTimes:
    """When the schedules tick (cron, UTC), and how many days back the sensor looks for what was missed."""

    quotes: str = "*/2 * * * *"
    candles: str = "1 * * * *"
    days: str = "20 0 * * *"
    catch_up_days: int = 7
    catch_up_seconds: int = 60


def price_jobs() -> list[Any]:
    """One job for each thing that is scheduled: its runs are not those of a backfill, which has no job of ours."""
    return [
        _job(QUOTES_JOB, "Fetches the latest price of every instrument.", QUOTES),
        _job(CANDLES_JOB, "Fetches the candles of the days that its tags name, of every instrument.", CANDLES),
        _job(DAYS_JOB, "Computes days over all sources, and the orders in USD.", DAILY, ORDERS_USD),
    ]


def price_schedules(plan: PricePlan, times: PriceTimes) -> list[dg.ScheduleDefinition]:
    """Quotes every two minutes, candles every hour, days once a day."""
    instruments = instrument_keys(plan)
    status = dg.DefaultScheduleStatus.RUNNING if plan.enabled else dg.DefaultScheduleStatus.STOPPED

    @dg.schedule(
        name="prices_quotes_schedule",
        job_name=QUOTES_JOB,
        cron_schedule=times.quotes,
        execution_timezone="UTC",
        default_status=status,
        description="The latest prices.",
    )
    def quotes(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return busy(context.instance, QUOTES_JOB) or dg.RunRequest()

    @dg.schedule(
        name="prices_candles_schedule",
        job_name=CANDLES_JOB,
        cron_schedule=times.candles,
        execution_timezone="UTC",
        default_status=status,
        description="The candles of today that are not there yet; in the first hours of a day, of yesterday too.",
    )
    def candles(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        at = context.scheduled_execution_time.astimezone(UTC)
        return busy(context.instance, CANDLES_JOB) or candles_request(instruments, *days_to_look_at(at))

    @dg.schedule(
        name="prices_days_schedule",
        job_name=DAYS_JOB,
        cron_schedule=times.days,
        execution_timezone="UTC",
        default_status=status,
        description="The close of yesterday over all sources, and the orders in USD.",
    )
    def days(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        today = context.scheduled_execution_time.astimezone(UTC).date()
        return busy(context.instance, DAYS_JOB) or days_request(today - timedelta(days=1), today)

    return [quotes, candles, days]


def days_to_look_at(at: datetime) -> tuple[date, date]:
    """The first and the last day whose candles may have closed since the schedule's last ticks."""
    return (at - timedelta(hours=3)).date(), at.date()


def candles_request(instruments: Sequence[str], first: date, last: date, run_key: str | None = None) -> dg.RunRequest:
    """One run for all instruments and those days: a rectangle of partitions. Asks only for what is missing."""
    corners = (f"{first}{BETWEEN}{instruments[0]}", f"{last}{BETWEEN}{instruments[-1]}")
    return dg.RunRequest(run_key=run_key, run_config=ONLY_GAPS, tags=range_tags(*corners))


def days_request(first: date, last: date, run_key: str | None = None) -> dg.RunRequest:
    """One run for those days."""
    return dg.RunRequest(run_key=run_key, tags=range_tags(str(first), str(last)))


def busy(instance: dg.DagsterInstance, job: str) -> dg.SkipReason | None:
    """Why nothing is to be requested now: a run of the job is in progress."""
    run = run_under_way(instance, job)
    return dg.SkipReason(f"Run {run.run_id} of {job} is still in progress.") if run else None


def _job(name: str, description: str, *keys: dg.AssetKey) -> Any:
    return dg.define_asset_job(
        name,
        selection=dg.AssetSelection.assets(*keys),
        description=description,
        executor_def=dg.in_process_executor,
        config=None if CANDLES in keys else dict(CALM),
        tags=TAGS,
        run_tags=TAGS,
    )
