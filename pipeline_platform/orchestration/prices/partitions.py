"""The partitions of prices: days, and days of instruments. All days are UTC: none has 23 or 25 hours."""

from __future__ import annotations

from datetime import UTC, date, datetime, time

import dagster as dg

from pipeline_platform.core.price_partitions import instrument_key
from pipeline_platform.core.prices import Instrument
from pipeline_platform.sources.plan import PricePlan

DAY, INSTRUMENT = "day", "instrument"
NOBODY = "none:NONE"  # a dimension may not be empty; there is no such source


def days(start: date) -> dg.DailyPartitionsDefinition:
    """UTC days up to today, which is still under way."""
    return dg.DailyPartitionsDefinition(datetime.combine(start, time(), UTC), timezone="UTC", end_offset=1)


def candle_partitions(plan: PricePlan, start: date) -> dg.MultiPartitionsDefinition:
    """Days by instruments of the enabled sources; see docs/decisions/0023."""
    return dg.MultiPartitionsDefinition(
        {DAY: days(start), INSTRUMENT: dg.StaticPartitionsDefinition(instrument_keys(plan))}
    )


def instrument_keys(plan: PricePlan) -> list[str]:
    """The keys of the dimension `instrument`, in the file's order."""
    return [instrument_key(instrument) for instrument, _ in plan.instruments()] or [NOBODY]


def keys_of(context: dg.AssetExecutionContext) -> list[str]:
    """The partitions of the run."""
    return [str(key) for key in context.partition_keys]


def canonicals(plan: PricePlan) -> dict[Instrument, str]:
    """Our names of the enabled instruments."""
    return dict(plan.instruments())
