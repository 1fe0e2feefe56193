"""One case a source: what to ask it for, what the truth is, and where its answers keep their rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipeline_platform.core.budgets import Failing, Priority
from pipeline_platform.core.prices import Candle, Interval, Quote, is_closed
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.rates import PUBLISHED, fixings, gecko_points
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.local.price_server.truth import Truth
from pipeline_platform.sources.catalog import KINDS, open_source
from pipeline_platform.sources.http import Patience
from pipeline_platform.sources.plan import SourcePlan
from pipeline_platform.sources.protocol import Source
from pipeline_platform_tests.contract import price_rows

NOW = datetime(2026, 11, 20, 18, 20, 30, tzinfo=UTC)  # a Friday
TODAY = NOW.replace(hour=0, minute=0, second=0)
DAY = timedelta(days=1)


@dataclass
class Purse:
    """A budget without limits that remembers what it was told."""

    taken: list[tuple[float, Priority]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)
    known: dict[str, Failing] = field(default_factory=dict)  # by what has failed
    since: float = 0.0  # for how many seconds whatever fails has failed by now

    def take(self, weight: float, priority: Priority) -> None:
        """Remembers."""
        self.taken.append((weight, priority))

    def pause(self, seconds: float) -> None:
        """Remembers."""
        self.pauses.append(seconds)

    def failing(self, *names: str) -> list[Failing | None]:
        """What it was told."""
        return [self.known.get(name) for name in names]

    def failed(self, *names: str) -> list[Failing]:
        """Counts."""
        for name in names:
            there = self.known.get(name)
            self.known[name] = Failing(there.count + 1 if there else 1, self.since)
        return [self.known[name] for name in names]

    def answered(self, *names: str) -> None:
        """Forgets."""
        for name in names:
            self.known.pop(name, None)

    def later(self, seconds: float) -> None:
        """Time goes by since the last failures."""
        self.known = {name: replace(each, ago=each.ago + seconds) for name, each in self.known.items()}


@dataclass
class Rejected:
    """Records at odds, as they came."""

    found: list[tuple[datetime | None, str]] = field(default_factory=list)

    def add(self, at: datetime | None, why: str) -> None:
        """Remembers."""
        self.found.append((at, why))


Expect = Callable[[Truth, str, Interval, TimeRange], list[Candle]]


@dataclass(frozen=True)
class Case:
    """One source. `rows` finds the list of candles in an answer's data.

    `broken`: changes of an answer's envelope. `odd`: changes of one row, that give another row; what they are told as.
    """

    kind: str
    symbol: str
    other: str
    interval: Interval
    path: str  # of candles
    expect: Expect
    rows: Callable[[Any], Any]
    with_rows: Callable[[Any, Any], Any]
    broken: tuple[tuple[Callable[[Any], Any], str], ...]  # a change of the answer, and the path it should be named by
    odd: tuple[tuple[Callable[[Any], Any], str], ...]
    quotes_path: str
    currency: str
    page: int
    unknown: str
    to_microseconds: int = 0  # what a row's time is multiplied by for microseconds; 0: its times are dates

    def open(self, server: PriceServer, purse: Purse, *, patience: float = 5.0) -> Source:
        """The source against the server, with the server's clock."""
        source = SourcePlan(
            name=self.kind,
            kind=self.kind,
            base_url=server.url,
            intervals=(self.interval,),
            instruments={"AAA-USD": self.symbol},
        )
        return open_source(
            source,
            purse,
            Priority.LIVE,
            environ={},
            clock=server.clock,
            patience=Patience(patience, patience, 2 * patience),
        )

    def misbehave(self, server: PriceServer, fault: Fault) -> None:
        """Candles of the source come with a fault from now on."""
        server.faults.set(self.path, fault)

    def expected(self, truth: Truth, wanted: TimeRange) -> list[Candle]:
        """The truth about `symbol`."""
        return self.expect(truth, self.kind, self.interval, wanted)

    def range(self, candles: int) -> TimeRange:
        """So many closed candles, well before now and within everybody's reach."""
        end = self.interval.floor(NOW) - 10 * self.interval.length
        return TimeRange(end - candles * self.interval.length, end)


def _candles(symbol: str, currency: str) -> Expect:
    def expect(truth: Truth, source: str, interval: Interval, wanted: TimeRange) -> list[Candle]:
        grace = KINDS[source].grace
        return [
            Candle(
                *(source, symbol, interval, each.open_time, each.open, each.high, each.low, each.close, each.volume),
                closed=is_closed(each.open_time, interval, NOW, grace),
            )
            for each in truth.candles(source, symbol, currency, interval, wanted, NOW)
        ]

    return expect


def _hourly_points(symbol: str, currency: str) -> Expect:
    def expect(truth: Truth, source: str, interval: Interval, wanted: TimeRange) -> list[Candle]:
        end = interval.ceiling(wanted.end)
        points = []
        for chunk in TimeRange(interval.ceiling(wanted.start), end).chunks(30 * DAY):
            points += gecko_points(truth, currency, chunk.end - 31 * DAY, min(chunk.end, NOW), NOW)
        by_candle: dict[datetime, dict[datetime, Decimal]] = {}
        for at, price in points:
            by_candle.setdefault(interval.floor(at), {})[at] = price
        candles = []
        for opened in sorted(each for each in by_candle if each in wanted):
            prices = list(by_candle[opened].values())
            four = (prices[0], max(prices), min(prices), prices[-1])
            closed = is_closed(opened, interval, NOW, timedelta(minutes=40))
            candles.append(Candle(source, symbol, interval, opened, *four, Decimal(0), closed))
        return candles

    return expect


def _fixings(symbol: str, base: str, other: str) -> Expect:
    def expect(truth: Truth, source: str, interval: Interval, wanted: TimeRange) -> list[Candle]:
        candles = []
        last = (wanted.end - timedelta(seconds=1)).date()
        for day, rate in fixings(truth, base, other, wanted.start.date(), last, NOW):
            at = _midnight(day)
            closed = at + DAY <= NOW
            candles.append(Candle(source, symbol, interval, at, rate, rate, rate, rate, Decimal(0), closed))
        return candles

    return expect


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _exchange(kind: str, symbol: str, other: str, page: int, path: str, quotes: str, unknown: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "symbol": symbol,
        "other": other,
        "interval": Interval.HOUR,
        "path": path,
        "expect": _candles(symbol, "BTC"),
        "quotes_path": quotes,
        "currency": "BTC",
        "page": page,
        "unknown": unknown,
    }


def _binance(kind: str) -> Case:
    return Case(
        **_exchange(kind, "BTCUSDT", "ETHUSDT", 1000, "/api/v3/klines", "/api/v3/ticker/24hr", "NOPEUSDT"),
        rows=price_rows.itself,
        with_rows=price_rows.replaced,
        to_microseconds=1000,
        broken=((lambda _: {"data": []}, "the whole answer"), (lambda _: 5, "the whole answer")),
        odd=(
            (price_rows.later(8 * 60_000 + 14_789), "is not the start of a 1h candle"),
            (price_rows.long(11), "should be a list of 12"),
            (price_rows.long(13), "should be a list of 12"),
            (price_rows.with_value(0, "2026-01-01"), "[0] should be a number"),
            (price_rows.with_value(0, None), "[0] should be a number and is None"),
            (price_rows.with_value(1, None), "[1] should be a number and is None"),
            (price_rows.with_value(3, "a lot"), "[3] should be a number"),
            (price_rows.with_value(4, True), "[4] should be a number"),
            (price_rows.with_value(4, "1e400"), "[4] should be a number of a usual size"),
            (price_rows.with_value(5, "Infinity"), "[5] should be a number"),
            (price_rows.with_value(5, "-3"), "volume -3 is negative"),
            (price_rows.upside_down(2, 3), "is below low"),
            (lambda _: None, "should be a list"),
        ),
    )


CASES = [
    _binance("binance"),
    _binance("demo"),
    Case(
        **_exchange(
            *("coinbase", "BTC-USD", "ETH-USD", 300),
            *("/products/BTC-USD/candles", "/products/BTC-USD/ticker", "NOPE-USD"),
        ),
        rows=price_rows.itself,
        with_rows=price_rows.replaced,
        to_microseconds=1_000_000,
        broken=((lambda _: {"candles": []}, "the whole answer"), (lambda _: 5, "the whole answer")),
        odd=(
            (price_rows.later(61), "is not the start of a 1h candle"),
            (price_rows.long(5), "should be a list of 6"),
            (price_rows.with_value(0, None), "[0] should be a number and is None"),
            (price_rows.with_value(2, ""), "[2] should be a number"),
            (price_rows.with_value(5, None), "[5] should be a number and is None"),
            (price_rows.with_value(5, [1]), "[5] should be a number"),
            (price_rows.upside_down(2, 1), "is below low"),
        ),
    ),
    Case(
        **_exchange("kraken", "XBTUSD", "ETHUSD", 720, "/0/public/OHLC", "/0/public/Trades", "NOPEUSD"),
        rows=price_rows.kraken_rows,
        with_rows=price_rows.kraken_with,
        to_microseconds=1_000_000,
        broken=(
            (lambda _: [], "the whole answer"),
            (lambda _: {"error": []}, "result"),
            (lambda _: {"error": None, "result": {}}, "error"),
            (lambda _: {"error": [], "result": {"last": 1}}, "result"),
        ),
        odd=(
            (price_rows.later(7), "is not the start of a 1h candle"),
            (price_rows.long(7), "should be a list of 8"),
            (price_rows.with_value(0, "soon"), "[0] should be a number"),
            (price_rows.with_value(4, None), "[4] should be a number and is None"),
            (price_rows.with_value(6, {}), "[6] should be a number"),
            (price_rows.upside_down(2, 3), "is below low"),
        ),
    ),
    Case(
        kind="coingecko",
        symbol="bitcoin",
        other="ethereum",
        interval=Interval.HOUR,
        path="/api/v3/coins/bitcoin/market_chart/range",
        expect=_hourly_points("bitcoin", "BTC"),
        rows=price_rows.gecko_rows,
        with_rows=price_rows.gecko_with,
        broken=(
            (lambda _: {"price": []}, "prices"),
            (lambda _: {"prices": {}}, "prices"),
        ),
        odd=(
            (price_rows.long(3), "should be a list of 2"),
            (price_rows.with_value(0, -1), "[0] should be a time since 1970"),
            (price_rows.with_value(1, None), "[1] should be a number and is None"),
            (price_rows.with_value(1, -2), "[1] should be a price"),
            (lambda _: None, "should be a list"),
        ),
        quotes_path="/api/v3/simple/price",
        currency="BTC",
        page=88 * 24,
        unknown="nope",
        to_microseconds=1000,
    ),
    Case(
        kind="frankfurter",
        symbol="EUR-USD",
        other="GBP-USD",
        interval=Interval.DAY,
        path="/v2/rates",
        expect=_fixings("EUR-USD", "EUR", "USD"),
        rows=price_rows.itself,
        with_rows=price_rows.replaced,
        broken=((lambda _: {"rates": {}}, "the whole answer"),),
        odd=(
            (price_rows.with_value("rate", "many"), ".rate should be a number"),
            (price_rows.with_value("rate", None), ".rate should be a number and is None"),
            (price_rows.with_value("rate", 0), ".rate should be a rate above 0"),
            (price_rows.with_value("date", 20260101), ".date should be text"),
            (price_rows.with_value("date", "01.02.2026"), ".date should be a date"),
            (price_rows.with_value("base", "CHF"), ".base should be EUR, as asked"),
            (lambda row: {"date": row["date"], "base": row["base"], "quote": "USD"}, ".rate is missing"),
        ),
        quotes_path="/v2/rates",
        currency="EUR",
        page=4 * 365,
        unknown="EUR-XXX",
    ),
    Case(
        kind="frankfurter_v1",
        symbol="EUR-USD",
        other="GBP-USD",
        interval=Interval.DAY,
        path="/v1/",
        expect=_fixings("EUR-USD", "EUR", "USD"),
        rows=price_rows.v1_rows,
        with_rows=price_rows.v1_with,
        broken=(
            (lambda _: [], "the whole answer"),
            (lambda body: {"base": body["base"]}, "rates"),
        ),
        odd=(
            (lambda row: [f"day {row[0]}", row[1]], "(its name) should be a date"),
            (price_rows.with_value(1, {"USD": None}), ".USD should be a number and is None"),
            (price_rows.with_value(1, {"USD": "-1"}), ".USD should be a rate above 0"),
            (price_rows.with_value(1, {}), ".USD is missing"),
            (price_rows.with_value(1, None), "should be an object"),
        ),
        quotes_path="/v1/latest",
        currency="EUR",
        page=4 * 365,
        unknown="EUR-XXX",
    ),
    Case(
        kind="ecb",
        symbol="EUR-USD",
        other="EUR-GBP",
        interval=Interval.DAY,
        path="/service/data/EXR/D.USD.EUR.SP00.A",
        expect=_fixings("EUR-USD", "EUR", "USD"),
        rows=price_rows.csv_rows,
        with_rows=price_rows.csv_with,
        broken=(
            (lambda body: body.replace("OBS_VALUE", "VALUE"), "line 2.OBS_VALUE"),
            (lambda body: body.replace("TIME_PERIOD", "DAY"), "line 2.TIME_PERIOD"),
        ),
        odd=(
            (price_rows.cell(6, "26-11-02"), ".TIME_PERIOD should be a date"),
            (price_rows.cell(7, "a lot"), ".OBS_VALUE should be a number"),
            (price_rows.cell(7, "0"), ".OBS_VALUE should be a rate above 0"),
            (lambda line: f"{line},more", "should be an object"),
        ),
        quotes_path="/service/data/EXR/D.USD.EUR.SP00.A",
        currency="EUR",
        page=10 * 365,
        unknown="EUR-XXX",
    ),
]


def quoted(case: Case, truth: Truth) -> Quote:
    """The truth about the latest price."""
    if case.interval is Interval.DAY:
        [(day, rate)] = list(fixings(truth, "EUR", "USD", NOW.date(), NOW.date(), NOW))
        assert _midnight(day) + PUBLISHED <= NOW
        return Quote(case.kind, case.symbol, rate, _midnight(day))
    return Quote(case.kind, case.symbol, truth.price(case.currency, NOW), NOW)


each_case = pytest.mark.parametrize("case", CASES, ids=[case.kind for case in CASES])
