"""The assets that are computed by days: prices over all sources, and orders in USD."""

# No postponed annotations here: Dagster reads them at run time.

from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import sqlalchemy as sa

from pipeline_platform.core.currencies import CURRENCIES
from pipeline_platform.orchestration.etl_runs import booked
from pipeline_platform.orchestration.ingest.assets import OWNERS, minutes_key
from pipeline_platform.orchestration.prices.charts import table
from pipeline_platform.orchestration.prices.keys import CANDLES, DAILY, GROUP, ORDERS_USD, view_metadata
from pipeline_platform.orchestration.prices.partitions import days, keys_of
from pipeline_platform.orchestration.prices.planned import days_of_sources
from pipeline_platform.orchestration.prices.resources import PriceSources
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.warehouse.etl_ledger import EtlCounts
from pipeline_platform.warehouse.orders_usd import recompute_orders
from pipeline_platform.warehouse.price_days import recompute_days

DAY_POLICY = dg.BackfillPolicy.single_run()


def day_assets(start: date) -> list[dg.AssetsDefinition]:
    """`prices/daily` and `orders_usd_1d`, from the first day that candles can be had of."""
    return [_daily(start), _orders_usd(start)]


def _daily(start: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=DAILY,
        deps=[CANDLES],
        description="Days by symbol over all sources: OHLCV, a consolidated price, a gap marker.",
        partitions_def=days(start),
        backfill_policy=DAY_POLICY,
        metadata=view_metadata("prices_daily"),
        group_name=GROUP,
        kinds={"postgres", "sql"},
        owners=OWNERS,
    )
    def daily(
        context: dg.AssetExecutionContext, warehouse: Warehouse, price_sources: PriceSources
    ) -> dg.MaterializeResult[None]:
        keys = keys_of(context)
        first, last = date.fromisoformat(min(keys)), date.fromisoformat(max(keys))
        with booked(context, warehouse, DAILY, keys) as booking:
            wanted = days_of_sources(price_sources.plan, first, last, datetime.now(UTC))
            done = recompute_days(warehouse.engine, wanted, run_id=context.run.run_id)
            booking.counts.update({str(day): EtlCounts(read=found) for day, found in done.by_day.items()})
        told: dict[str, Any] = {"dagster/row_count": done.days, "changed": done.changed, "gaps": done.gaps}
        return dg.MaterializeResult(
            metadata={**told, "last day": dg.MetadataValue.md(_table(warehouse.engine, _DAY, day=last))}
        )

    return daily


def _orders_usd(start: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=ORDERS_USD,
        deps=[DAILY, minutes_key("orders")],
        description="Amounts of orders in USD by day, country and product: streams and prices in one mart.",
        partitions_def=days(start),
        backfill_policy=DAY_POLICY,
        metadata=view_metadata("orders_usd_1d"),
        group_name=GROUP,
        kinds={"postgres", "sql"},
        owners=OWNERS,
    )
    def orders_usd_1d(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult[None]:
        keys = keys_of(context)
        first, last = date.fromisoformat(min(keys)), date.fromisoformat(max(keys))
        with booked(context, warehouse, ORDERS_USD, keys) as booking:
            mart = recompute_orders(warehouse.engine, first, last, CURRENCIES, run_id=context.run.run_id)
            booking.counts.update({str(day): EtlCounts(read=found) for day, found in mart.by_day.items()})
        told: dict[str, Any] = {"dagster/row_count": mart.rows, "changed": mart.changed, "without USD": mart.problems}
        return dg.MaterializeResult(
            metadata={**told, "last day": dg.MetadataValue.md(_table(warehouse.engine, _ORDERS, day=last))}
        )

    return orders_usd_1d


_DAY = "select symbol, open, high, low, close, volume, price, gap from prices_daily where day = :day order by symbol"
_ORDERS = """
select country, currency, sum(orders) as orders, sum(amount) as amount, max(rate) as rate,
    sum(amount_usd) as amount_usd, max(problem) as problem
from orders_usd_1d where day = :day group by 1, 2 order by 1
"""


def _table(engine: sa.Engine, query: str, **values: object) -> str:
    with engine.connect() as connection:
        return table([dict(row._mapping) for row in connection.execute(sa.text(query), values)])
