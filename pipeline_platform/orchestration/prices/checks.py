"""Asset checks of prices: gaps, candles at odds with themselves, sources that disagree, and staleness."""

# No postponed annotations here: Dagster reads them at run time.

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg

from pipeline_platform.core.price_partitions import instrument_key
from pipeline_platform.core.time_ranges import TimeRange, in_words
from pipeline_platform.orchestration.prices.keys import CANDLES, DAILY, ORDERS_USD, QUOTES
from pipeline_platform.orchestration.prices.parked import parked_symbols
from pipeline_platform.orchestration.prices.planned import missed, quotes_wanted
from pipeline_platform.orchestration.prices.resources import PriceSources
from pipeline_platform.orchestration.resources import CALM, Warehouse
from pipeline_platform.sources.plan import PricePlan
from pipeline_platform.warehouse.price_checks import Finding, disagreements, impossible_candles, old_quotes, unpriced

JOB = "check_prices"
LOOK_BACK = timedelta(days=7)
APART = 0.02  # of the consolidated price
QUOTE_AGE = timedelta(minutes=15)
PRICE_AGE = timedelta(days=1)  # of what trades always: nobody may have traded for hours
DELAY = timedelta(hours=2)  # a schedule's interval and a retry or two


def price_checks() -> list[dg.AssetChecksDefinition]:
    """The checks, over the last seven days."""

    @dg.asset_check(
        asset=CANDLES,
        name="no_gaps",
        description=f"For all closed candles of the last {in_words(LOOK_BACK)} a source has answered: it gave them, or "
        "has none.",
    )
    def no_gaps(warehouse: Warehouse, price_sources: PriceSources) -> dg.AssetCheckResult:
        now, parked = datetime.now(UTC), parked_symbols(warehouse.engine, "candles")
        within = TimeRange(now - LOOK_BACK, now - DELAY)
        gaps = missed(warehouse.engine, price_sources.plan, within, now, parked=parked)
        lines = [f"{instrument_key(each.wanted.instrument)}: {each.candles} missing" for each in gaps if each.ranges]
        return dg.AssetCheckResult(
            passed=not lines,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "instruments": len(gaps),
                "missing": sum(each.candles for each in gaps),
                "where": "; ".join(lines) or "nowhere",
                "parked": "; ".join(parked.values()) or "none",
            },
        )

    @dg.asset_check(
        asset=QUOTES,
        name="fresh",
        description=f"Every instrument's quote was fetched in the last {in_words(QUOTE_AGE)}, and its price is no "
        f"older than {in_words(PRICE_AGE)}; of exchange rates, of the last working day.",
    )
    def fresh(warehouse: Warehouse, price_sources: PriceSources) -> dg.AssetCheckResult:
        now, parked = datetime.now(UTC), parked_symbols(warehouse.engine, "quotes")
        oldest = quotes_wanted(price_sources.plan, now, PRICE_AGE, parked=parked)
        finding = old_quotes(warehouse.engine, now, QUOTE_AGE, oldest)
        return dg.AssetCheckResult(
            passed=not finding.wrong,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={
                "looked at": finding.looked_at,
                "wrong": "; ".join(finding.wrong) or "none",
                "parked": "; ".join(parked.values()) or "none",
            },
        )

    def check(
        asset: dg.AssetKey, name: str, description: str, find: Callable[[Any, datetime], Finding], *, warn: bool = False
    ) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=asset, name=name, description=description)
        def found(warehouse: Warehouse) -> dg.AssetCheckResult:
            finding = find(warehouse.engine, datetime.now(UTC))
            return dg.AssetCheckResult(
                passed=not finding.wrong,
                severity=dg.AssetCheckSeverity.WARN if warn else dg.AssetCheckSeverity.ERROR,
                metadata={"looked at": finding.looked_at, "wrong": "; ".join(finding.wrong) or "none"},
            )

        return found

    return [
        no_gaps,
        fresh,
        check(
            CANDLES,
            "candles_are_possible",
            f"In the last {in_words(LOOK_BACK)}: low <= open, close <= high, and nothing is negative.",
            lambda engine, now: impossible_candles(engine, now - LOOK_BACK),
        ),
        check(
            DAILY,
            "sources_agree",
            f"The sources' closes of the last {in_words(LOOK_BACK)} are within {APART:.0%} of each other.",
            lambda engine, now: disagreements(engine, (now - LOOK_BACK).date(), APART),
            warn=True,
        ),
        check(
            ORDERS_USD,
            "every_order_has_a_price",
            f"All orders of the last {in_words(LOOK_BACK)} have an amount in USD.",
            lambda engine, now: unpriced(engine, (now - LOOK_BACK).date()),
            warn=True,
        ),
    ]


def price_check_job() -> Any:
    """One job that runs all checks of prices."""
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.checks_for_assets(QUOTES, CANDLES, DAILY, ORDERS_USD),
        description="Looks for gaps, impossible candles, sources that disagree and stale quotes.",
        executor_def=dg.in_process_executor,
        config=dict(CALM),
        run_tags={"dagster-celery/queue": "etl"},
    )


def price_check_schedule(plan: PricePlan) -> dg.ScheduleDefinition:
    """Every quarter of an hour."""
    return dg.ScheduleDefinition(
        name="check_prices_every_15_minutes",
        job_name=JOB,
        cron_schedule="13,28,43,58 * * * *",
        execution_timezone="UTC",
        default_status=dg.DefaultScheduleStatus.RUNNING if plan.enabled else dg.DefaultScheduleStatus.STOPPED,
    )
