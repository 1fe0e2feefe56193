"""Three sensors: one asks again for what a downtime or a failed run left out, one computes the days that candles
changed, and one asks for quotes as soon as there is something to quote.

The first two look at the warehouse, not at Dagster's ticks: what is there is the truth, whoever brought it.
"""

# No postponed annotations here: Dagster reads them at run time.

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import dagster as dg

from pipeline_platform.core.price_partitions import cell_of, day_ranges, instrument_key
from pipeline_platform.core.prices import EPOCH
from pipeline_platform.core.time_ranges import TimeRange, in_words, of_day, of_days
from pipeline_platform.errors import TransientError
from pipeline_platform.orchestration.cursors import fields, kept, moment
from pipeline_platform.orchestration.prices.checks import DELAY
from pipeline_platform.orchestration.prices.keys import CANDLES
from pipeline_platform.orchestration.prices.parked import parked_symbols
from pipeline_platform.orchestration.prices.partitions import instrument_keys
from pipeline_platform.orchestration.prices.planned import missed
from pipeline_platform.orchestration.prices.resources import PriceSources
from pipeline_platform.orchestration.prices.schedules import (
    CANDLES_JOB,
    DAYS_JOB,
    QUOTES_JOB,
    PriceTimes,
    busy,
    candles_request,
    days_request,
)
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.sources.plan import PricePlan
from pipeline_platform.warehouse.etl_ledger import EtlLedger

# When gaps that asking did not close are asked for again: nobody has answered for them, and may soon.
LATER, SOON = timedelta(hours=6), timedelta(minutes=10)
NEAR_DAYS = 7  # days to compute that are nearer to each other are one run


def price_sensors(plan: PricePlan, start: date, times: PriceTimes) -> list[dg.SensorDefinition]:
    """`prices_catch_up`, `prices_days_follow` and `prices_first_quotes`; on where a source is enabled."""
    instruments = instrument_keys(plan)
    status = dg.DefaultSensorStatus.RUNNING if plan.enabled else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name="prices_catch_up",
        job_name=CANDLES_JOB,
        minimum_interval_seconds=times.catch_up_seconds,
        default_status=status,
        description=f"Requests the candles of the last {times.catch_up_days} days that are missing, in one run.",
    )
    def catch_up(
        context: dg.SensorEvaluationContext, warehouse: Warehouse, price_sources: PriceSources
    ) -> dg.SensorResult | dg.SkipReason:
        if not price_sources.plan.enabled:
            return dg.SkipReason("No source of prices is enabled; see docs/prices.md.")
        now = datetime.now(UTC)
        try:
            if skip := busy(context.instance, CANDLES_JOB):
                return skip
            since = max(now - timedelta(days=times.catch_up_days), of_days(start, start).start)
            parked = parked_symbols(warehouse.engine, "candles")
            within = TimeRange(since, now - DELAY)
            gaps = missed(warehouse.engine, price_sources.plan, within, now, due=True, parked=parked)
        except TransientError as error:
            return dg.SkipReason(f"{error} The next tick tries again.")
        ranges = [span for each in gaps for span in each.ranges]
        if not ranges:
            return dg.SkipReason(f"Nothing is missing since {since:%Y-%m-%d}.")
        patience = SOON if failed_last(context.instance) else LATER
        if asked := kept(context, lambda text: asked_before(text, ranges, now, patience), ""):
            return dg.SkipReason(
                f"What is missing was asked for at {asked}; it is asked for again after {in_words(patience)}."
            )
        requests = [candles_request(instruments, first, last) for first, last in day_ranges(ranges, NEAR_DAYS)]
        return dg.SensorResult(run_requests=requests, cursor=note(ranges, now))

    @dg.sensor(
        name="prices_days_follow",
        job_name=DAYS_JOB,
        minimum_interval_seconds=min(15, times.catch_up_seconds),
        default_status=status,
        description="Requests the days whose candles have been loaded since it last looked, in few runs.",
    )
    def days_follow(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SensorResult | dg.SkipReason:
        try:
            if skip := busy(context.instance, DAYS_JOB):
                return skip
            since = kept(context, moment, EPOCH)
            loaded = EtlLedger(warehouse.engine).ended("/".join(CANDLES.path), since)
        except TransientError as error:
            return dg.SkipReason(f"{error} The next tick tries again.")
        if not loaded:
            return dg.SkipReason("No candles have been loaded since.")
        ranges = day_ranges({of_day(cell_of(key).day) for key, _ in loaded}, NEAR_DAYS)
        newest = max(at for _, at in loaded)
        return dg.SensorResult(
            run_requests=[days_request(max(first, start), last) for first, last in ranges if last >= start],
            cursor=newest.isoformat(),
        )

    @dg.sensor(
        name="prices_first_quotes",
        job_name=QUOTES_JOB,
        minimum_interval_seconds=times.catch_up_seconds,
        default_status=status,
        description="Requests the quotes once when instruments have come: the schedule's next tick may be far away.",
    )
    def first_quotes(
        context: dg.SensorEvaluationContext, price_sources: PriceSources
    ) -> dg.SensorResult | dg.SkipReason:
        quoted = _quoted(price_sources.plan)
        known: set[str] = kept(context, lambda text: set(json.loads(text)), set())
        if quoted <= known:
            return dg.SkipReason("Every instrument has been quoted, or asked for, since it is in the file.")
        if skip := busy(context.instance, QUOTES_JOB):
            return skip
        return dg.SensorResult(run_requests=[dg.RunRequest()], cursor=json.dumps(sorted(quoted)))

    return [catch_up, days_follow, first_quotes]


def _quoted(plan: PricePlan) -> set[str]:
    """The instruments whose quotes are fetched, with their sources."""
    return {instrument_key(each) for each, _ in plan.instruments() if plan.enabled[each.source].quotes}


def note(missed: Sequence[TimeRange], now: datetime) -> str:
    """A cursor that remembers what was asked for, and when."""
    return json.dumps({"asked": now.isoformat(), "missed": _digest(missed)})


def failed_last(instance: dg.DagsterInstance) -> bool:
    """Whether the latest run of the candles' job has failed."""
    runs = instance.get_runs(dg.RunsFilter(job_name=CANDLES_JOB), limit=1)
    return bool(runs) and runs[0].status is not dg.DagsterRunStatus.SUCCESS


def asked_before(cursor: str, missed: Sequence[TimeRange], now: datetime, patience: timedelta) -> str:
    """When exactly this was asked for, if that was not as long ago as `patience`."""
    known = fields(cursor)
    asked = moment(known["asked"])
    return asked.isoformat() if known["missed"] == _digest(missed) and now - asked < patience else ""


def _digest(missed: Sequence[TimeRange]) -> str:
    text = " ".join(f"{each.start.isoformat()}/{each.end.isoformat()}" for each in sorted(set(missed)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
