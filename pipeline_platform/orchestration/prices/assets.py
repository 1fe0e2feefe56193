"""The assets of prices: quotes and candles; those of days are in `days`."""

# No postponed annotations here: Dagster reads them at run time.

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import dagster as dg

from pipeline_platform.core.budgets import Priority
from pipeline_platform.core.price_partitions import Cell, days_of, instrument_key, ranges_of
from pipeline_platform.core.prices import Instrument
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import SourceRefusedError
from pipeline_platform.orchestration.etl_runs import booked
from pipeline_platform.orchestration.ingest.assets import OWNERS
from pipeline_platform.orchestration.ingest.attempts import recorded
from pipeline_platform.orchestration.prices.charts import sparkline, table
from pipeline_platform.orchestration.prices.days import day_assets
from pipeline_platform.orchestration.prices.fetch import FAULTS_TOLD, Fetched, fetch_candles
from pipeline_platform.orchestration.prices.keys import CANDLES, GROUP, QUOTES, view_metadata
from pipeline_platform.orchestration.prices.parked import Refused
from pipeline_platform.orchestration.prices.partitions import candle_partitions, canonicals, keys_of
from pipeline_platform.orchestration.prices.planned import counting_interval, expected_candles
from pipeline_platform.orchestration.prices.resources import PriceSources
from pipeline_platform.orchestration.prices.troubles import Troubles
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.sources.catalog import KINDS
from pipeline_platform.sources.plan import PricePlan
from pipeline_platform.warehouse.absences import absent_candles
from pipeline_platform.warehouse.candle_days import NO_CANDLES, candle_days
from pipeline_platform.warehouse.etl_ledger import EtlCounts
from pipeline_platform.warehouse.obsolete import close_instrument
from pipeline_platform.warehouse.quotes import add_quotes

BACKFILL_TAG = "dagster/backfill"
# A year of an instrument: few runs, and none so long that it holds its worker for minutes. See docs/decisions/0023.
CANDLE_POLICY = dg.BackfillPolicy.multi_run(366)
TOLD_IN_FULL = 62  # partitions of a run


class CandleConfig(dg.Config):
    """`only_gaps`: ask only for candles that are not there, closed, already."""

    only_gaps: bool = False


def price_assets(plan: PricePlan, start: date) -> list[dg.AssetsDefinition]:
    """The four assets. `start`: the first day that candles can be had of."""
    return [_quotes(), _candles(plan, start), *day_assets(start)]


def _quotes() -> dg.AssetsDefinition:
    @dg.asset(
        key=QUOTES,
        description="The latest price of every instrument; the history is in `prices_quotes_history`.",
        pool="prices_quotes",
        metadata=view_metadata("prices_quotes"),
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
            refused = Refused(warehouse.engine, "quotes")
            for name, chosen in plan.enabled.items():
                symbols = [each.symbol for each in refused.due(Instrument(name, each) for each in chosen.symbols)]
                if not chosen.quotes or not symbols:
                    continue
                with troubles.of(name), price_sources.open(name, Priority.LIVE) as source:
                    asked = datetime.now(UTC)
                    answer = source.quotes(symbols)
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
                    refused.answered([Instrument(name, each.symbol) for each in answer.found])
                    for symbol, words in answer.refused.items():
                        if not refused.refused(Instrument(name, symbol), words):
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
        told |= _parked(refused)
        return dg.MaterializeResult(metadata={**told, "quotes": dg.MetadataValue.md(table(rows))})

    return quotes


def _candles(plan: PricePlan, start: date) -> dg.AssetsDefinition:
    @dg.asset(
        key=CANDLES,
        description="Candles of every instrument as its source gives them, by UTC day and instrument.",
        partitions_def=candle_partitions(plan, start),
        backfill_policy=CANDLE_POLICY,
        pool="prices_candles",
        metadata=view_metadata("prices_candles"),
        group_name=GROUP,
        kinds={"postgres", "python"},
        owners=OWNERS,
    )
    def candles(
        context: dg.AssetExecutionContext, config: CandleConfig, warehouse: Warehouse, price_sources: PriceSources
    ) -> dg.MaterializeResult[None]:
        began, plan = time.perf_counter(), price_sources.plan
        names = canonicals(plan)
        by_backfill = BACKFILL_TAG in context.run.tags
        priority = Priority.BACKFILL if by_backfill else Priority.LIVE
        # What an earlier try of this run has stored is not asked for again.
        only_gaps = config.only_gaps or context.retry_number > 0
        fetched, troubles = Fetched(), Troubles()
        with recorded(context.op_execution_context, warehouse, None):
            refused = Refused(warehouse.engine, "candles")
        wanted = _wanted(context, names, refused, seldom=config.only_gaps and not by_backfill)
        keys = [Cell(day, each).key for each, ranges in wanted.items() for span in ranges for day in days_of(span)]
        if not keys:
            return dg.MaterializeResult(metadata={"run: partitions": 0, **_parked(refused)})
        with booked(context, warehouse, CANDLES, keys) as booking:
            try:
                for instrument, ranges in wanted.items():
                    with troubles.of(instrument.symbol), price_sources.open(instrument.source, priority) as source:
                        try:
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
                        except SourceRefusedError as error:
                            words = refused.refused(instrument, str(error)) if error.symbol else ""
                            if not words:
                                raise
                            name = instrument_key(instrument)
                            close_instrument(warehouse.engine, "/".join(CANDLES.path), name, context.run.run_id, words)
                            continue
                        if source.spent:
                            refused.answered([instrument])
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
                **_parked(refused),
            }
        )

    return candles


def _wanted(
    context: dg.AssetExecutionContext, names: Mapping[Instrument, str], refused: Refused, *, seldom: bool
) -> dict[Instrument, list[TimeRange]]:
    """What the run is to ask for, by instrument; says what it leaves out: what is not in the plan, and, where parked
    symbols are to be asked for but `seldom`, those."""
    asked = ranges_of(keys_of(context))
    due = set(refused.due(asked)) if seldom else set(asked)
    for instrument in asked:
        if instrument not in names:
            context.log.warning("%s is not among the enabled instruments any more.", instrument_key(instrument))
        elif instrument not in due:
            context.log.warning("%s", refused.parked[instrument])
    return {each: ranges for each, ranges in asked.items() if each in names and each in due}


def _parked(refused: Refused) -> dict[str, str]:
    """What the UI says of symbols that are parked."""
    return {"parked": "; ".join(refused.parked.values())} if refused.parked else {}


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
            first, *others = days_of(span)
            nothing = absent_candles(warehouse.engine, instrument, interval, first, others[-1] if others else first)
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
