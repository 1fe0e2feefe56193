"""All definitions of prices, from the plan."""

from __future__ import annotations

import dagster as dg

from pipeline_platform.orchestration.prices.assets import price_assets
from pipeline_platform.orchestration.prices.checks import price_check_job, price_check_schedule, price_checks
from pipeline_platform.orchestration.prices.resources import PriceSources
from pipeline_platform.orchestration.prices.schedules import PriceTimes, price_jobs, price_schedules
from pipeline_platform.orchestration.prices.sensors import price_sensors
from pipeline_platform.orchestration.resources import fixed
from pipeline_platform.settings import Settings, require


def price_sources(settings: Settings) -> PriceSources:
    """The plan and its sources."""
    return PriceSources(
        redis_url=require(settings.redis_url, "REDIS_URL"),
        path=str(settings.prices_file or ""),
        demo_url=settings.demo_prices_url or "",
    )


def price_definitions(settings: Settings) -> dg.Definitions:
    """Assets, checks, jobs, schedules and sensors. Without an enabled source all are there, and switched off."""
    sources = price_sources(settings)
    plan, start, times = sources.plan, settings.prices_start, _times(settings)
    return dg.Definitions(
        assets=price_assets(plan, start),
        asset_checks=price_checks(),
        jobs=[*price_jobs(), price_check_job()],
        schedules=[*price_schedules(plan, times), price_check_schedule(plan)],
        sensors=price_sensors(plan, start, times),
        resources={"price_sources": fixed(sources)},
    )


def _times(settings: Settings) -> PriceTimes:
    return PriceTimes(
        quotes=settings.prices_quotes_cron,
        candles=settings.prices_candles_cron,
        days=settings.prices_days_cron,
        catch_up_days=settings.prices_catch_up_days,
        catch_up_seconds=settings.prices_catch_up_seconds,
    )
