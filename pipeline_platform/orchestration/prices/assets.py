"""The assets of prices: quotes, candles, days over all sources, and orders in USD."""

# No postponed annotations here: Dagster reads them at run time.

import time
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg
import sqlalchemy as sa

from pipeline_platform.core.budgets import Priority
from pipeline_platform.core.currencies import CURRENCIES
from pipeline_platform.core.price_partitions import Cell, days_of, ranges_of
from pipeline_platform.errors import SourceRefusedError
from pipeline_platform.orchestration.etl_runs import booked
from pipeline_platform.orchestration.ingest.assets import OWNERS, minutes_key
from pipeline_platform.orchestration.prices.charts import sparkline, table
from pipeline_platform.orchestration.prices.fetch import FAULTS_TOLD, Fetched, fetch_candles
from pipeline_platform.orchestration.prices.partitions import candle_partitions, canonicals, days, keys_of
from pipeline_platform.orchestration.prices.planned import counting_interval, days_of_sources, expected_candles
from pipeline_platform.orchestration.prices.resources import PriceSources
from pipeline_platform.orchestration.prices.troubles import Troubles
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.sources.catalog import KINDS
from pipeline_platform.sources.plan import PricePlan
from pipeline_platform.warehouse.absences import absent_candles
from pipeline_platform.warehouse.candle_days import NO_CANDLES, candle_days
from pipeline_platform.warehouse.etl_ledger import EtlCounts
from pipeline_platform.warehouse.orders_usd import recompute_orders
from pipeline_platform.warehouse.price_days import recompute_days
from pipeline_platform.warehouse.price_views import PRICE_VIEWS
from pipeline_platform.warehouse.quotes import add_quotes

GROUP = "prices"
QUOTES, CANDLES, DAILY = (dg.AssetKey(["prices", name]) for name in ("quotes", "candles", "daily"))
ORDERS_USD = dg.AssetKey("orders_usd_1d")
BACKFILL_TAG = "dagster/backfill"
# A year of an instrument: few runs, and none so long that it holds its worker for minutes. See docs/decisions/0023.
CANDLE_POLICY = dg.BackfillPolicy.multi_run(366)
TOLD_IN_FULL = 62  # partitions of a run
DAY_POLICY = dg.BackfillPolicy.single_run()


class CandleConfig(dg.Config):
    """`only_gaps`: ask only for candles that are not there, closed, already."""

    only_gaps: bool = False


def price_assets(plan: PricePlan, start: date) -> list[dg.AssetsDefinition]:
    """The four assets. `start`: the first day that candles can be had of."""
    return [_quotes(), _candles(plan, start), _daily(start), _orders_usd(start)]


def _quotes() -> dg.AssetsDefinition:
    @dg.asset(
        key=QUOTES,
        description="The latest price of every instrument; the history is in `prices_quotes_history`.",
        pool="prices_quotes",
        metadata=_metadata("prices_quotes"),
        group_name=GROUP,
        kinds={"postgres", "python"},
        owners=OWNERS,
    )
    def quotes(
        context: dg.AssetExecutionContext, warehouse: Warehouse, price_sources: PriceSources
    ) -> dg.MaterializeResult[None]:
        plan, rows, added, requests, troubles = price_sources.plan, [], 0, 0, Troubles()
        rejected: list[str] = []
        with booked(context, warehouse, QUOTES) as booking:
            for name, chosen in plan.enabled.items():
                if not chosen.quotes:
                    continue
                with troubles.of(name), price_sources.open(name, Priority.LIVE) as source:
                    asked = datetime.now(UTC)
                    answer = source.quotes(chosen.symbols)
                    requests += source.spent
                    added += add_quotes(
                        warehouse.engine,
                        answer.found,
                        fetched_at=asked,
                        run_id=context.run.run_id,
                        canonical=canonicals(plan),
                    )
                    rejected += answer.rejected
                    rows += [
                        {"source": name, "symbol": each.symbol, "price": each.price, "at": each.at.isoformat()}
                        for each in answer.found
                    ]
                    for symbol, words in answer.refused.items():
                        troubles.note(name, SourceRefusedError(words, symbol))
                    if answer.trouble:
                        troubles.note(name, answer.trouble)
            booking.counts[None] = EtlCounts(read=len(rows) + len(rejected), rejected=len(rejected), requests=requests)
            troubles.tell()
        told: dict[str, Any] = {
            "dagster/row_count": len(rows),
            "new": added,
            "requests": requests,
            "rejected": len(rejected),
        }
        if rejected:
            told["faults"] = "; ".join(rejected[:FAULTS_TOLD])
        return dg.MaterializeResult(metadata={**told, "quotes": dg.MetadataValue.md(table(rows))})

    return quotes


def _candles(plan: PricePlan, start: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=CANDLES,
        description="Candles of every instrument as its source gives them, by UTC day and instrument.",
        partitions_def=candle_partitions(plan, start),
        backfill_policy=CANDLE_POLICY,
        pool="prices_candles",
        metadata=_metadata("prices_candles"),
        group_name=GROUP,
        kinds={"postgres", "python"},
        owners=OWNERS,
    )
    def candles(
        context: dg.AssetExecutionContext, config: CandleConfig, warehouse: Warehouse, price_sources: PriceSources
    ) -> dg.MaterializeResult[None]:
        began, keys, plan = time.perf_counter(), keys_of(context), price_sources.plan
        names = canonicals(plan)
        priority = Priority.BACKFILL if BACKFILL_TAG in context.run.tags else Priority.LIVE
        # What an earlier try of this run has stored is not asked for again.
        only_gaps = config.only_gaps or context.retry_number > 0
        fetched, troubles = Fetched(), Troubles()
        with booked(context, warehouse, CANDLES, keys) as booking:
            try:
                for instrument, ranges in ranges_of(keys).items():
                    if instrument not in names:
                        context.log.warning("%s is not among the enabled instruments any more.", instrument)
                        continue
                    with troubles.of(instrument.symbol), price_sources.open(instrument.source, priority) as source:
                        fetch_candles(
                            warehouse.engine,
                            source,
                            instrument,
                            names[instrument],
                            plan.enabled[instrument.source].intervals,
                            ranges,
                            only_gaps=only_gaps,
                            run_id=context.run.run_id,
                            clock=lambda: datetime.now(UTC),
                            into=fetched,
                        )
                        booking.good.update(Cell(day, instrument).key for each in ranges for day in days_of(each))
            finally:
                booking.counts.update(fetched.counts)
            troubles.tell()
        missing = _tell_by_partition(context, warehouse, price_sources, keys)
        written = fetched.written
        return dg.MaterializeResult(
            metadata={
                "run: candles read": fetched.read,
                "run: inserted": written.inserted,
                "run: updated": written.updated,
                "run: unchanged": written.unchanged,
                "run: rejected": fetched.rejected,
                "run: requests": sum(fetched.requests.values()),
                "run: partitions": len(keys),
                "run: missing": missing,
                "run: seconds": round(time.perf_counter() - began, 2),
                **({"run: faults": "; ".join(fetched.faults)} if fetched.faults else {}),
            }
        )

    return candles


def _tell_by_partition(
    context: dg.AssetExecutionContext, warehouse: Warehouse, price_sources: PriceSources, keys: Sequence[str]
) -> int:
    """Rows, gaps and a small chart of every day; of the days of a long run only the gaps. Gives all that is missing.

    Dagster lists all partitions of the run again for each that is told of.
    """
    plan, now, missing = price_sources.plan, datetime.now(UTC), 0
    for instrument, ranges in ranges_of(keys).items():
        chosen = plan.enabled.get(instrument.source)
        if chosen is None:
            continue
        kind, interval = KINDS[chosen.kind], counting_interval(chosen)
        for span in ranges:
            known = candle_days(warehouse.engine, instrument, interval, span)
            nothing = absent_candles(warehouse.engine, instrument, interval, span)
            for day in days_of(span):
                there = known.get(day, NO_CANDLES)
                expected = expected_candles(day, interval, kind.calendar, kind.grace, now)
                absent = max(0, expected - there.closed - nothing.get(day, 0))
                missing += absent
                told: dict[str, Any] = {"missing": absent}
                if len(keys) <= TOLD_IN_FULL:
                    told |= {"dagster/partition_row_count": there.closed + there.open, "day": sparkline(there.closes)}
                if absent or len(keys) <= TOLD_IN_FULL:
                    context.add_asset_metadata(told, partition_key=Cell(day, instrument).key)
    return missing


def _daily(start: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=DAILY,
        deps=[CANDLES],
        description="Days by symbol over all sources: OHLCV, a consolidated price, a gap marker.",
        partitions_def=days(start),
        backfill_policy=DAY_POLICY,
        metadata=_metadata("prices_daily"),
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
        metadata=_metadata("orders_usd_1d"),
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


def _metadata(view: str) -> dict[str, Any]:
    shown = next(each for each in PRICE_VIEWS if each.name == view)
    columns = [dg.TableColumn(each.name, each.type, description=each.comment or None) for each in shown.columns]
    return {"dagster/table_name": f"warehouse.public.{view}", "dagster/column_schema": dg.TableSchema(columns)}
