"""CoinGecko, Frankfurter and the ECB as they answer: points of chosen density, and one rate a working day."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

from pipeline_platform.core.calendars import Calendar
from pipeline_platform.core.prices import EPOCH
from pipeline_platform.local.price_server.replies import Asked, Reply
from pipeline_platform.local.price_server.truth import BASES, Truth

COINS = {"bitcoin": "BTC", "ethereum": "ETH", "solana": "SOL", "ripple": "XRP", "cardano": "ADA"}
POINT_DELAY = timedelta(milliseconds=41)  # the points are never quite on the hour
GECKO_REACH = timedelta(days=365)
PUBLISHED = timedelta(hours=15)  # after midnight, UTC
CURRENCIES = ("EUR", "GBP")
FIRST = date(1999, 1, 4)
ECB_HEADER = (
    "KEY,FREQ,CURRENCY,CURRENCY_DENOM,EXR_TYPE,EXR_SUFFIX,TIME_PERIOD,OBS_VALUE,OBS_STATUS,OBS_CONF,OBS_PRE_BREAK,TITLE"
)


def simple_price(asked: Asked) -> Reply:
    """Coins that are not known are left out."""
    known = [coin for coin in asked.query.get("ids", "").split(",") if coin in COINS]
    return Reply(
        {
            coin: {"usd": float(asked.truth.price(COINS[coin], at)), "last_updated_at": int(at.timestamp())}
            for coin, at in ((each, asked.traded(each)) for each in known)
        }
    )


def market_chart_range(asked: Asked) -> Reply:
    """Five minutes for the latest day, hours up to 90 days, days beyond."""
    coin = asked.path.split("/")[4]
    if coin not in COINS:
        return Reply({"error": "coin not found"}, 404)
    start, end = (EPOCH + timedelta(seconds=int(asked.query[name])) for name in ("from", "to"))
    if start < asked.now - GECKO_REACH:
        status = {"error_code": 10012, "error_message": "Your request exceeds the allowed time range."}
        return Reply({"error": {"status": status}}, 401)
    prices = gecko_points(asked.truth, COINS[coin], start, min(end, asked.now), asked.now)
    points = [[(at - EPOCH) // timedelta(milliseconds=1), float(price)] for at, price in prices]
    return Reply({"prices": points, "market_caps": points, "total_volumes": points})


def gecko_points(
    truth: Truth, currency: str, start: datetime, end: datetime, now: datetime
) -> list[tuple[datetime, Decimal]]:
    """The points of a range, as dense as CoinGecko makes them."""
    if end - start <= timedelta(days=1) and now - start <= timedelta(days=1):
        step = timedelta(minutes=5)
    else:
        step = timedelta(hours=1) if end - start <= timedelta(days=90) else timedelta(days=1)
    first = start + (EPOCH - start) % step
    times = [first + number * step for number in range((end - first) // step + 1)]
    return [(at + POINT_DELAY, price) for at, price in zip(times, truth.prices(currency, times), strict=True)]


def rates_v2(asked: Asked) -> Reply:
    """A list of rates; the latest without `from`."""
    query = asked.query
    base, others = query.get("base", "EUR"), query.get("quotes", "USD").split(",")
    if invalid := [each for each in (base, *others) if each not in (*CURRENCIES, "USD")]:
        return Reply({"status": 422, "message": f"invalid currency: {','.join(invalid)}"}, 422)
    first, last = _days(query.get("from"), query.get("to"), asked.now)
    if (last - first).days > 5 * 366 and "providers" in query:
        return Reply({"message": "range too long"}, 422)
    rows = [
        {"date": day.isoformat(), "base": base, "quote": other, "rate": float(rate)}
        for other in others
        for day, rate in _some(asked, base, other, first, last, latest="from" not in query)
    ]
    return Reply(rows)


def rates_v1(asked: Asked) -> Reply:
    """A range by date, which starts at the working day at or before its start; or the latest.

    Currencies that are not known are left out. 404 when nothing is left, and for a range without a working day.
    """
    base, others = asked.query.get("base", "EUR"), asked.query.get("symbols", "USD").split(",")
    others = [each for each in others if each in (*CURRENCIES, "USD")]
    if base not in (*CURRENCIES, "USD") or not others:
        return Reply({"message": "not found"}, 404)
    span = asked.path.rsplit("/", 1)[1]
    latest = span == "latest"
    start, _, end = span.partition("..")
    first, last = _days(None, None, asked.now) if latest else _days(start, end, asked.now)
    if not latest and not any(fixings(asked.truth, base, other, first, last, asked.now) for other in others):
        return Reply({"message": "not found"}, 404)
    if not latest:
        first = next(day for day in _back(first) if Calendar.ECB.expects(_midnight(day)))
    rates: dict[str, dict[str, float]] = {}
    for other in others:
        for day, rate in _some(asked, base, other, first, last, latest=latest):
            rates.setdefault(day.isoformat(), {})[other] = float(rate)
    if latest:
        [(only, pairs)] = rates.items()
        return Reply({"amount": 1.0, "base": base, "date": only, "rates": pairs})
    ends = {"start_date": min(rates, default=""), "end_date": max(rates, default="")}
    return Reply({"amount": 1.0, "base": base, **ends, "rates": rates})


def ecb_series(asked: Asked) -> Reply:
    """CSV; 404 when there is nothing."""
    nothing = Reply({"title": "Not Found", "status": 404, "detail": "No results found.", "instance": asked.path}, 404)
    key = asked.path.rsplit("/", 1)[1]
    other = key.split(".")[1]
    if other not in {*CURRENCIES, "USD"} - {"EUR"}:
        return nothing
    last_ones = int(asked.query.get("lastNObservations", "0"))
    first, last = _days(asked.query.get("startPeriod"), asked.query.get("endPeriod"), asked.now)
    lines = [
        f'EXR.{key},D,{other},EUR,SP00,A,{day},{rate},A,F,,"{other}, spot"'
        for day, rate in fixings(asked.truth, "EUR", other, first, last, asked.now)[-last_ones:]
    ]
    if not lines:
        return nothing
    return Reply("\r\n".join([ECB_HEADER, *lines, ""]), headers={"Content-Type": "text/csv"})


def fixings(truth: Truth, base: str, other: str, first: date, last: date, now: datetime) -> list[tuple[date, Decimal]]:
    """The rates of the working days from `first` to `last` that are published by `now`."""
    start = max(first, FIRST)
    days = [start + timedelta(days=number) for number in range((last - start).days + 1)]
    days = [day for day in days if Calendar.ECB.expects(_midnight(day)) and _midnight(day) + PUBLISHED <= now]
    times = [_midnight(day) + PUBLISHED for day in days]
    over, under = (truth.prices(each, times) if each in BASES else [Decimal(1)] * len(times) for each in (base, other))
    return [(day, round(one / another, 5)) for day, one, another in zip(days, over, under, strict=True)]


def _some(asked: Asked, base: str, other: str, first: date, last: date, *, latest: bool) -> list[tuple[date, Decimal]]:
    rates = fixings(asked.truth, base, other, first, last, asked.now)
    return rates[-1:] if latest else rates


def _days(first: str | None, last: str | None, now: datetime) -> tuple[date, date]:
    """The days of a request; without any, the latest fortnight."""
    end = date.fromisoformat(last) if last else now.date()
    return (date.fromisoformat(first) if first else end - timedelta(days=14)), end


def _back(day: date) -> Iterator[date]:
    while True:
        yield day
        day -= timedelta(days=1)


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
