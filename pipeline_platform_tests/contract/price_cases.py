"""One case a source: what to ask it for, what the truth is, and where its answers keep their rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

from pipeline_platform.core.budgets import Priority
from pipeline_platform.core.prices import Candle, Interval, Quote, is_closed
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.local.price_server.rates import PUBLISHED, fixings, gecko_points
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.local.price_server.truth import Truth
from pipeline_platform.sources.catalog import KINDS, open_source
from pipeline_platform.sources.http import Patience
from pipeline_platform.sources.plan import SourcePlan
from pipeline_platform.sources.protocol import Source

NOW = datetime(2026, 11, 20, 18, 20, 30, tzinfo=UTC)  # a Friday
TODAY = NOW.replace(hour=0, minute=0, second=0)
DAY = timedelta(days=1)


@dataclass
class Purse:
    """A budget without limits that remembers what it was told."""

    taken: list[tuple[float, Priority]] = field(default_factory=list)
    pauses: list[float] = field(default_factory=list)

    def take(self, weight: float, priority: Priority) -> None:
        """Remembers."""
        self.taken.append((weight, priority))

    def pause(self, seconds: float) -> None:
        """Remembers."""
        self.pauses.append(seconds)


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
    """One source. `rows` finds the list of candles in an answer's data; `head` is the width of a row's time."""

    kind: str
    symbol: str
    other: str
    interval: Interval
    path: str  # of candles
    expect: Expect
    rows: Callable[[Any], Any]
    with_rows: Callable[[Any, Any], Any]
    broken: tuple[tuple[Callable[[Any], Any], str], ...]  # a change of the answer, and the path it should be named by
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


def _itself(body: Any) -> Any:
    return body


def _replaced(_: Any, rows: Any) -> Any:
    return rows


def _in_row(column: int | str, value: Any, rows: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def change(body: Any) -> Any:
        rows(body)[2][column] = value
        return body

    return change


def _longer(rows: Callable[[Any], Any], length: int) -> Callable[[Any], Any]:
    """Rows with another number of members."""

    def change(body: Any) -> Any:
        rows(body)[2][:] = [*rows(body)[2], "0"][:length]
        return body

    return change


def _kraken_rows(body: Any) -> Any:
    return next(rows for name, rows in body["result"].items() if name != "last")


def _kraken_with(body: Any, rows: Any) -> Any:
    [name] = [name for name in body["result"] if name != "last"]
    return {"error": [], "result": {name: rows, "last": 0}}


def _gecko_rows(body: Any) -> Any:
    return body["prices"]


def _gecko_with(body: Any, rows: Any) -> Any:
    return {**body, "prices": rows}


def _v1_rows(body: Any) -> Any:
    return [[day, rates] for day, rates in body["rates"].items()]


def _v1_with(body: Any, rows: Any) -> Any:
    return {**body, "rates": dict(rows)}


def _v1_rate(body: Any) -> Any:
    day = sorted(body["rates"])[0]
    body["rates"][day] = {"USD": None}
    return body


def _csv_rows(body: str) -> Any:
    return body.split("\r\n")[1:-1]


def _csv_value(body: str) -> str:
    rows = [row.split(",") for row in _csv_rows(body)]
    rows[2][7] = "a lot"
    return _csv_with(body, [",".join(row) for row in rows])


def _csv_with(body: str, rows: Any) -> str:
    return "\r\n".join([body.split("\r\n")[0], *rows, ""])


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
        **_exchange(kind, "BTCUSDT", "ETHUSDT", 1000, "/api/v3/klines", "/api/v3/ticker/price", "NOPEUSDT"),
        rows=_itself,
        with_rows=_replaced,
        to_microseconds=1000,
        broken=(
            (lambda _: {"data": []}, "the whole answer"),
            (_longer(_itself, 11), "[2]"),
            (_longer(_itself, 13), "[2]"),
            (_in_row(0, "2026-01-01", _itself), "[2][0]"),
            (_in_row(0, 1_780_000_000_123, _itself), "[2][0]"),
            (_in_row(1, None, _itself), "[2][1]"),
            (_in_row(3, "a lot", _itself), "[2][3]"),
            (_in_row(4, True, _itself), "[2][4]"),
            (_in_row(4, "1e400", _itself), "[2][4]"),
            (_in_row(5, "Infinity", _itself), "[2][5]"),
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
        rows=_itself,
        with_rows=_replaced,
        to_microseconds=1_000_000,
        broken=(
            (lambda _: {"candles": []}, "the whole answer"),
            (_longer(_itself, 5), "[2]"),
            (_in_row(0, None, _itself), "[2][0]"),
            (_in_row(2, "", _itself), "[2][2]"),
            (_in_row(5, [1], _itself), "[2][5]"),
        ),
    ),
    Case(
        **_exchange("kraken", "XBTUSD", "ETHUSD", 720, "/0/public/OHLC", "/0/public/Ticker", "NOPEUSD"),
        rows=_kraken_rows,
        with_rows=_kraken_with,
        to_microseconds=1_000_000,
        broken=(
            (lambda _: [], "the whole answer"),
            (lambda _: {"error": []}, "result"),
            (lambda _: {"error": None, "result": {}}, "error"),
            (lambda _: {"error": [], "result": {"last": 1}}, "result"),
            (_longer(_kraken_rows, 7), "result.XXBTZUSD[2]"),
            (_in_row(0, "soon", _kraken_rows), "result.XXBTZUSD[2][0]"),
            (_in_row(6, {}, _kraken_rows), "result.XXBTZUSD[2][6]"),
        ),
    ),
    Case(
        kind="coingecko",
        symbol="bitcoin",
        other="ethereum",
        interval=Interval.HOUR,
        path="/api/v3/coins/bitcoin/market_chart/range",
        expect=_hourly_points("bitcoin", "BTC"),
        rows=_gecko_rows,
        with_rows=_gecko_with,
        broken=(
            (lambda _: {"price": []}, "prices"),
            (lambda _: {"prices": {}}, "prices"),
            (_longer(_gecko_rows, 3), "prices[2]"),
            (_in_row(0, -1, _gecko_rows), "prices[2][0]"),
            (_in_row(1, None, _gecko_rows), "prices[2][1]"),
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
        rows=_itself,
        with_rows=_replaced,
        broken=(
            (lambda _: {"rates": {}}, "the whole answer"),
            (_in_row("rate", "many", _itself), "[2].rate"),
            (_in_row("date", 20260101, _itself), "[2].date"),
            (_in_row("date", "01.02.2026", _itself), "[2].date"),
            (_in_row("base", "CHF", _itself), "[2].base"),
            (lambda body: [{"date": row["date"], "base": row["base"], "quote": "USD"} for row in body], "[0].rate"),
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
        rows=_v1_rows,
        with_rows=_v1_with,
        broken=(
            (lambda _: [], "the whole answer"),
            (lambda body: {"base": body["base"]}, "rates"),
            (lambda body: {"rates": {"today": {"USD": 1}}}, "rates.today"),
            (_v1_rate, "USD"),
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
        rows=_csv_rows,
        with_rows=_csv_with,
        broken=(
            (lambda body: body.replace("OBS_VALUE", "VALUE"), "line 2.OBS_VALUE"),
            (lambda body: body.replace("TIME_PERIOD", "DAY"), "line 2.TIME_PERIOD"),
            (lambda body: body.replace("2026-", "26-"), "line 2.TIME_PERIOD"),
            (_csv_value, "line 4.OBS_VALUE"),
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
    at = NOW.replace(microsecond=0) if case.kind == "coingecko" else NOW
    return Quote(case.kind, case.symbol, truth.price(case.currency, NOW), at)
