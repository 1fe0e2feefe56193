"""The demo's history of prices: a backfill of 90 days through Dagster, when it is not there yet."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pipeline_platform.errors import PlatformError
from pipeline_platform.local.backfills import CANDLES, plan_candles
from pipeline_platform.local.connections import Connections
from pipeline_platform.local.dagster_api import DagsterApi
from pipeline_platform.settings import Settings
from pipeline_platform.sources.catalog import load_plan
from pipeline_platform.warehouse.engine import connect as connect_warehouse

DAYS = 90
TRIES = 10


def backfill_history(
    settings: Settings,
    where: Connections,
    say: Callable[[str], object],
    *,
    sleep: Callable[[float], object] = time.sleep,
) -> str | None:
    """Starts the backfill and gives its id; None when nothing is missing, or when it could not be started."""
    for _ in range(TRIES):
        try:
            return _start(settings, where, say)
        except PlatformError as error:
            say(f"The backfill of prices does not start yet: {error}")
            sleep(5.0)
    return None


def _start(settings: Settings, where: Connections, say: Callable[[str], object]) -> str | None:
    plan = load_plan(settings.prices_file, where.demo_prices_url)
    engine = connect_warehouse(where.warehouse_readonly_url)
    now = datetime.now(UTC)
    last = now.date() - timedelta(days=1)
    try:
        work = plan_candles(engine, plan, last - timedelta(days=DAYS - 1), last, now, only_gaps=True)
    finally:
        engine.dispose()
    if not work.partitions:
        return None
    started = DagsterApi(where.dagster_url, where.api_key).launch(
        CANDLES, work.partitions, title=f"demo: {DAYS} days of prices"
    )
    say(
        f"Backfill {started} of {DAYS} days of made-up prices: {len(work.partitions):,} partitions, "
        f"{work.requests:,} requests, {work.runs} runs. {where.dagster_url}/runs/b/{started}"
    )
    return started
