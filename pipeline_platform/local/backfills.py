"""What a backfill of prices would do: which partitions and candles, how many requests, how long within the budgets."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

import sqlalchemy as sa

from pipeline_platform.core.price_partitions import days_of, keys_of
from pipeline_platform.core.prices import Instrument, Interval
from pipeline_platform.core.time_ranges import TimeRange, coalesce, cost, of_days
from pipeline_platform.errors import SettingError
from pipeline_platform.sources.catalog import allowance_of
from pipeline_platform.sources.idle import idle_source
from pipeline_platform.sources.plan import PricePlan, SourcePlan
from pipeline_platform.sources.protocol import Source
from pipeline_platform.warehouse.candle_gaps import Wanted, find_gaps

CANDLES = "prices/candles"
# Partitions of an instrument nearer to each other than this become one run: a run costs more than a look at what is
# there, and only what is missing is asked for.
NEAR = timedelta(days=30)
WEIGHTS = {"binance": 2.0, "demo": 2.0}  # of a request for candles; 1 at the others
DAYS_A_RUN = 366  # orchestration/prices/assets.py: CANDLE_POLICY
SECONDS_A_RUN = 2.0


@dataclass(frozen=True)
class InstrumentWork:
    """What is to be fetched of one instrument, by interval, and the partitions that this touches."""

    instrument: Instrument
    ranges: dict[Interval, tuple[TimeRange, ...]]
    partitions: tuple[str, ...]
    candles: int
    requests: int


@dataclass(frozen=True)
class CandleWork:
    """A backfill of prices/candles before it is launched."""

    work: tuple[InstrumentWork, ...]
    seconds: float

    @property
    def partitions(self) -> list[str]:
        """The partitions to launch."""
        return [key for each in self.work for key in each.partitions]

    @property
    def candles(self) -> int:
        """Candles to fetch."""
        return sum(each.candles for each in self.work)

    @property
    def requests(self) -> int:
        """Requests to the sources."""
        return sum(each.requests for each in self.work)

    @property
    def runs(self) -> int:
        """Dagster's runs: a year of an instrument each, or fewer days where there is a hole."""
        return sum(_runs(each.partitions) for each in self.work)


def plan_candles(
    engine: sa.Engine,
    plan: PricePlan,
    first: date,
    last: date,
    now: datetime,
    *,
    sources: Collection[str] = (),
    symbols: Collection[str] = (),
    only_gaps: bool = False,
) -> CandleWork:
    """The work for the days from `first` to `last`; `symbols` are ours (BTC-USD) or the sources' (BTCUSDT)."""
    chosen = _chosen(plan, sources, symbols)
    within, work, seconds = of_days(first, last), [], 0.0
    for name in dict.fromkeys(instrument.source for instrument in chosen):
        options = plan.enabled[name]
        source, requests = idle_source(options), 0
        for instrument in chosen:
            if instrument.source == name:
                each = _work(engine, source, options, instrument, within, now, only_gaps=only_gaps)
                requests += each.requests
                work.append(each)
        source.close()
        allowance = allowance_of(options)
        weight = max(0.0, requests * WEIGHTS.get(options.kind, 1.0) - (allowance.burst - allowance.reserve))
        seconds = max(seconds, weight / allowance.rate)
    found = CandleWork(tuple(each for each in work if each.partitions), seconds)
    return CandleWork(found.work, found.seconds + SECONDS_A_RUN * found.runs)


def _work(
    engine: sa.Engine,
    source: Source,
    options: SourcePlan,
    instrument: Instrument,
    within: TimeRange,
    now: datetime,
    *,
    only_gaps: bool,
) -> InstrumentWork:
    ranges: dict[Interval, tuple[TimeRange, ...]] = {}
    candles = requests = 0
    for interval in options.intervals:
        per_request = source.max_candles_per_request(interval)
        part = within.within(source.reach(interval, now), interval.ceiling(now))
        if part is None:
            continue
        if only_gaps:
            wanted = Wanted(instrument, interval, source.calendar, per_request)
            (gaps,) = find_gaps(engine, [wanted], part, now - source.grace, due=now)
            ranges[interval], candles = gaps.ranges, candles + gaps.candles
        else:
            ranges[interval], candles = (part,), candles + part.candles(interval)
        joined = coalesce(ranges[interval], interval.length * (per_request // 2)) if only_gaps else ranges[interval]
        requests += cost(joined, interval, per_request)
    days = [of_days(day, day) for each in ranges.values() for span in each for day in days_of(span)]
    partitions = keys_of(instrument, coalesce(days, NEAR if only_gaps else timedelta()))
    return InstrumentWork(instrument, ranges, tuple(partitions), candles, requests)


def _chosen(plan: PricePlan, sources: Collection[str], symbols: Collection[str]) -> list[Instrument]:
    if not plan.enabled:
        raise SettingError("No source of prices is enabled. Enable one in PIPELINE_PRICES_FILE; see docs/prices.md.")
    if unknown := sorted(set(sources) - set(plan.enabled)):
        raise SettingError(f"{unknown[0]!r} is not an enabled source. There are: {', '.join(plan.enabled)}.")
    known = list(plan.instruments())
    names = {name for instrument, canonical in known for name in (instrument.symbol, canonical)}
    if unknown := sorted(set(symbols) - names):
        raise SettingError(f"{unknown[0]!r} is not a symbol of the plan. There are: {', '.join(sorted(names))}.")
    chosen = [
        instrument
        for instrument, canonical in known
        if (not sources or instrument.source in sources)
        and (not symbols or instrument.symbol in symbols or canonical in symbols)
    ]
    if not chosen:
        raise SettingError("No enabled source has those symbols.")
    return chosen


def _runs(partitions: Iterable[str]) -> int:
    """Runs that consecutive partitions of one instrument become."""
    days = [of_days(day, day) for day in sorted(date.fromisoformat(key[:10]) for key in partitions)]
    return sum(-(-each.candles(Interval.DAY) // DAYS_A_RUN) for each in coalesce(days))
