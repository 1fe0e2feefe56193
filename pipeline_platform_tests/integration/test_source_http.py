"""A source's client and the price server at their edges: real HTTP, a real budget in Redis."""

from __future__ import annotations

import contextlib
import gzip
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import requests

from pipeline_platform.core.budgets import Priority
from pipeline_platform.core.prices import Interval
from pipeline_platform.core.time_ranges import TimeRange
from pipeline_platform.errors import (
    QuestionRefusedError,
    SourceShapeError,
    SourceUnavailableError,
    UnknownSymbolError,
)
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.meters import Meters
from pipeline_platform.local.price_server.server import PriceServer, serving
from pipeline_platform.local.price_server.truth import BASES, Truth
from pipeline_platform.queue.budgets import RedisBudget
from pipeline_platform.queue.connection import connect
from pipeline_platform.sources.catalog import KINDS, open_source
from pipeline_platform.sources.failures import bounded_pause, named_pause
from pipeline_platform.sources.http import HttpClient, Patience
from pipeline_platform.sources.plan import SourcePlan
from pipeline_platform.sources.protocol import Source
from pipeline_platform.sources.series import About
from pipeline_platform_tests.contract.price_cases import Purse, Rejected

NOW = datetime(2026, 11, 20, 18, 20, 30, tzinfo=UTC)
HOURS = TimeRange(NOW.replace(minute=0, second=0) - timedelta(hours=40), NOW.replace(minute=0, second=0))


@pytest.fixture
def server() -> Iterator[PriceServer]:
    """A price server whose clock stands still."""
    with serving(clock=lambda: NOW) as server:
        yield server


def _open(kind: str, url: str, symbol: str, purse: Purse | None = None) -> Source:
    plan = SourcePlan(name=kind, kind=kind, base_url=url, instruments={"BTC-USD": symbol})
    return open_source(plan, purse or Purse(), Priority.LIVE, environ={}, clock=lambda: NOW)


@pytest.mark.parametrize(
    ("errors", "kind", "pauses"),
    [
        (["EAPI:Rate limit exceeded"], SourceUnavailableError, [10, 20]),
        (["EGeneral:Too many requests"], SourceUnavailableError, [10, 20]),
        (["EGeneral:Temporary lockout"], SourceUnavailableError, [60, 120]),
        ([f"EService:Throttled: {int(NOW.timestamp()) + 77}"], SourceUnavailableError, [77, 77]),
        ([f"EService: Throttled: {int(NOW.timestamp()) + 77}"], SourceUnavailableError, [77, 77]),
        ([f"EService:Throttled: {int(NOW.timestamp()) - 5}"], SourceUnavailableError, [10, 20]),
        (["EService:Throttled: soon"], SourceUnavailableError, [10, 20]),
        (["EService:Unavailable"], SourceUnavailableError, [5]),
        (["EService:Busy"], SourceUnavailableError, [5]),
        (["EService:Market in cancel_only mode", "EQuery:What"], SourceUnavailableError, [5]),
        (["ENew:Never heard of"], SourceUnavailableError, [5]),
        (["EGeneral:Invalid arguments"], QuestionRefusedError, []),
        (["EQuery:Some news"], QuestionRefusedError, []),
        (["EQuery:Unknown asset pair"], UnknownSymbolError, []),
        ([5], SourceShapeError, []),
    ],
)
def test_krakens_errors_come_in_a_body_of_status_200(
    server: PriceServer, errors: list[object], kind: type[Exception], pauses: list[float]
) -> None:
    purse = Purse()
    source = _open("kraken", server.url, "XBTUSD", purse)
    server.faults.set("/0/public/", Fault(status=200, body={"error": errors}))
    for _ in range(2):
        with pytest.raises(kind, match="error" if errors == [5] else str(errors[0])) as caught:
            list(source.candles("XBTUSD", Interval.HOUR, HOURS, Rejected()))
        assert type(caught.value) is kind
        purse.later(3600)
    assert purse.pauses == pauses
    source.close()


def test_krakens_warnings_are_no_errors(server: PriceServer) -> None:
    source = _open("kraken", server.url, "XBTUSD")
    server.faults.set("/0/public/OHLC", Fault(change=lambda body: {**body, "error": ["WGeneral:Danger"]}))
    assert len(list(source.candles("XBTUSD", Interval.HOUR, HOURS, Rejected()))) == 40
    source.close()


def test_krakens_last_row_is_open_even_when_our_clock_says_otherwise(server: PriceServer) -> None:
    plan = SourcePlan(name="kraken", kind="kraken", base_url=server.url, instruments={"BTC-USD": "XBTUSD"})
    source = open_source(plan, Purse(), Priority.LIVE, environ={}, clock=lambda: NOW + timedelta(hours=3))
    wanted = TimeRange(HOURS.start, NOW + timedelta(hours=3))
    candles = list(source.candles("XBTUSD", Interval.HOUR, wanted, Rejected()))
    assert [each.closed for each in candles] == [True] * 40 + [False]
    source.close()


def test_a_server_that_gives_smaller_pages_is_asked_again(server: PriceServer) -> None:
    source = _open("binance", server.url, "BTCUSDT")
    server.faults.set("/api/v3/klines", Fault(change=lambda rows: rows[:7]))
    assert len(list(source.candles("BTCUSDT", Interval.HOUR, HOURS, Rejected()))) == 40
    assert source.spent == 6
    source.close()


def test_a_server_that_ignores_the_start_does_not_keep_us_for_ever(server: PriceServer) -> None:
    source = _open("binance", server.url, "BTCUSDT")
    old = [[1_700_000_400_000 - 1_700_000_400_000 % 3_600_000, "1", "1", "1", "1", "1", 0, "1", 1, "1", "1", "0"]]
    server.faults.set("/api/v3/klines", Fault(status=200, body=old))
    assert list(source.candles("BTCUSDT", Interval.HOUR, HOURS, Rejected())) == []
    assert source.spent == 1
    source.close()


def test_times_before_an_exchange_opened_cost_one_request_and_not_one_a_page(server: PriceServer) -> None:
    source = _open("binance", server.url, "BTCUSDT")
    wanted = TimeRange(datetime(2017, 7, 1, tzinfo=UTC), datetime(2017, 8, 2, tzinfo=UTC))
    assert len(list(source.candles("BTCUSDT", Interval.MINUTE, wanted, Rejected()))) == 1440
    assert source.spent <= 3
    source.close()


def test_prices_are_exact_decimals(server: PriceServer) -> None:
    server.faults.set("/products/", Fault(change=lambda rows: [[rows[0][0], 0.1, 0.3, 0.1, 0.2, 1e-08]]))
    source = _open("coinbase", server.url, "BTC-USD")
    [candle] = source.candles("BTC-USD", Interval.HOUR, HOURS, Rejected())
    assert (candle.low, candle.high, candle.close) == (Decimal("0.1"), Decimal("0.3"), Decimal("0.2"))
    assert candle.volume == Decimal("0.00000001")
    source.close()


WEEKEND = TimeRange(datetime(2026, 11, 14, tzinfo=UTC), datetime(2026, 11, 16, tzinfo=UTC))


@pytest.mark.parametrize("kind", ["frankfurter", "frankfurter_v1", "ecb"])
@pytest.mark.parametrize(
    ("first", "days"),
    [
        pytest.param("2026-11-14", 2, id="a weekend"),
        pytest.param("2026-11-15", 1, id="a Sunday"),
        pytest.param("2026-04-03", 4, id="Easter"),
        pytest.param("2025-12-25", 2, id="Christmas"),
        pytest.param("2026-01-01", 1, id="New Year"),
    ],
)
def test_a_range_without_a_working_day_is_nothing(server: PriceServer, kind: str, first: str, days: int) -> None:
    start = datetime.fromisoformat(first).replace(tzinfo=UTC)
    source, rejected = _open(kind, server.url, "EUR-USD"), Rejected()
    assert list(source.candles("EUR-USD", Interval.DAY, TimeRange(start, start + timedelta(days=days)), rejected)) == []
    assert rejected.found == []
    assert source.spent <= 2  # the second says that the symbol is known
    source.close()


@pytest.mark.parametrize("kind", ["frankfurter", "frankfurter_v1", "ecb"])
@pytest.mark.parametrize("symbol", ["EUR-XXX", "EUR-USDD", "EURUSD", "-", "EUR-"])
def test_an_unknown_currency_is_no_range_without_a_working_day(server: PriceServer, kind: str, symbol: str) -> None:
    source = _open(kind, server.url, "EUR-USD")
    with pytest.raises(UnknownSymbolError) as caught:
        list(source.candles(symbol, Interval.DAY, WEEKEND, Rejected()))
    assert caught.value.symbol == symbol
    assert list(source.quotes([symbol, "EUR-USD"]).refused) == [symbol]
    source.close()


@pytest.mark.parametrize("kind", ["frankfurter", "frankfurter_v1", "ecb"])
@pytest.mark.parametrize(
    "body",
    ["<html>404</html>", "404 page not found", {"message": "no Route matched with those values"}, {"status": 404}],
)
def test_a_proxys_404_is_neither_nothing_nor_an_unknown_currency(server: PriceServer, kind: str, body: object) -> None:
    source = _open(kind, server.url, "EUR-USD")
    server.faults.set("/", Fault(status=404, body=body))
    with pytest.raises(SourceUnavailableError, match="404"):
        list(source.candles("EUR-USD", Interval.DAY, WEEKEND, Rejected()))
    answer: object = None
    with contextlib.suppress(SourceUnavailableError):
        answer = source.quotes(["EUR-USD"]).refused
    assert not answer
    source.close()


@pytest.mark.parametrize("missing", [1, 2, 4])
@pytest.mark.parametrize("value", ["", "NaN"])
def test_the_ecbs_last_rows_without_a_value_leave_the_one_before(server: PriceServer, missing: int, value: str) -> None:
    source = _open("ecb", server.url, "EUR-USD")
    whole = list(source.candles("EUR-USD", Interval.DAY, TimeRange(NOW - timedelta(days=20), NOW), Rejected()))

    def without(body: str) -> str:
        header, *lines = body.split("\r\n")[:-1]
        cut = [[*line.split(",")[:7], value, *line.split(",")[8:]] for line in lines[-missing:]]
        return "\r\n".join([header, *lines[:-missing], *(",".join(each) for each in cut), ""])

    server.faults.set("/service/data", Fault(change=without))
    [quote] = source.quotes(["EUR-USD"]).found
    assert (quote.at, quote.price) == (whole[-1 - missing].open_time, whole[-1 - missing].close)
    rejected = Rejected()
    candles = list(source.candles("EUR-USD", Interval.DAY, TimeRange(NOW - timedelta(days=20), NOW), rejected))
    assert (candles, rejected.found) == (whole[:-missing], [])
    source.close()


@contextmanager
def _raw(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that writes bytes as it likes."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                try:
                    connection.recv(65_536)
                    answer(connection)
                except OSError:
                    pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def _client(url: str, patience: Patience = Patience(1, 1, 1)) -> HttpClient:  # noqa: B008 - a frozen value
    return HttpClient("binance", url, Purse(), Priority.LIVE, patience=patience)


def test_a_body_that_drips_is_given_up_in_the_time_for_the_whole() -> None:
    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
        for _ in range(100):
            connection.sendall(b" ")
            time.sleep(0.1)

    with _raw(drip) as url:
        client = _client(url)
        begun = time.monotonic()
        with pytest.raises(SourceUnavailableError, match="in time"):
            client.get("/", about=About("candles"))
        assert time.monotonic() - begun < 2.5
        client.close()


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_body_without_end_is_given_up_in_bounded_memory(packed: bool) -> None:
    piece = gzip.compress(b" " * 2**25) if packed else b" " * 2**20

    def flood(connection: socket.socket) -> None:
        encoding = b"Content-Encoding: gzip\r\n" if packed else b""
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + encoding + b"\r\n")
        for _ in range(40):
            connection.sendall(piece)

    with _raw(flood) as url:
        client = _client(url, Patience(5, 5, 20))
        with pytest.raises(SourceUnavailableError, match="more than"):
            client.get("/", about=About("candles"))
        client.close()


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b"[1,]", b"\xff\xfe\xff", b"[" * 100_000, b"<html>", b"1" * 5000, b'{"a":Infinity}'],
)
def test_what_is_no_json_is_transient(body: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with _raw(answer) as url:
        client = _client(url)
        with pytest.raises(SourceUnavailableError, match=r"not whole JSON|answered / with 200: <html>"):
            client.get("/", about=About("candles"))
        client.close()


def test_a_server_that_is_not_there_is_unavailable() -> None:
    client = _client("http://127.0.0.1:1")
    with pytest.raises(SourceUnavailableError, match="cannot be reached"):
        client.get("/", about=About("candles"))
    assert client.spent == 1
    client.close()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("5", 5),
        ("0", 0),
        ("2.5", 2.5),
        ("-3", 0),
        ("999999999", 4 * 86_400),
        ("Fri, 20 Nov 2026 18:21:00 GMT", 30),
        ("Fri, 20 Nov 2026 18:00:00 GMT", 0),
        ("soon", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: str | None, seconds: float | None) -> None:
    assert bounded_pause(value, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Way too much request weight used; IP banned until 1795198850123. Please use WebSocket", 20.123),
        ("EService:Throttled: 1795198840", 10),
        ("EService: Throttled: 1795198840", 10),
        ("EService:Throttled: 1795198829", None),  # is over
        ("banned until 17951988501234", None),  # no time
        ("until tomorrow", None),
        ("banned until 9999999999999", 4 * 86_400),
    ],
)
def test_a_pause_is_read_from_words(text: str, seconds: float | None) -> None:
    assert named_pause(text, NOW) == (None if seconds is None else pytest.approx(seconds))


@pytest.mark.parametrize(
    ("headers", "body", "pauses"),
    [
        ({}, {"code": -1003, "msg": "Way too much request weight used; IP banned until 1795198850000."}, [20]),
        ({"Retry-After": "0"}, {"code": -1003, "msg": "Too many requests."}, [10]),
        ({"Retry-After": "soon"}, "slow down", [10]),
        ({}, {"title": "Error 1015: You are being rate limited", "retry_after": 30}, [30]),
        ({"Retry-After": "Fri, 20 Nov 2026 18:21:00 GMT"}, "", [30]),
    ],
)
def test_the_pause_is_the_one_that_the_source_names(
    server: PriceServer, headers: dict[str, str], body: object, pauses: list[float]
) -> None:
    purse = Purse()
    source = _open("binance", server.url, "BTCUSDT", purse)
    server.faults.set("/api/v3/klines", Fault(status=429, headers=headers, body=body))
    with pytest.raises(SourceUnavailableError, match="Nobody asks it for") as caught:
        list(source.candles("BTCUSDT", Interval.HOUR, HOURS, Rejected()))
    assert caught.value.retry_after == purse.pauses[0]
    assert purse.pauses == pauses
    source.close()


def test_an_error_names_no_key_and_fits_a_line(server: PriceServer) -> None:
    server.faults.set("/", Fault(status=503, body="a\r\nb\x1b[31m" + "x" * 5000))
    client = HttpClient("coingecko", server.url, Purse(), Priority.LIVE, headers={"x-cg-demo-api-key": "hush"})
    with pytest.raises(SourceUnavailableError) as caught:
        client.get("/api/v3/simple/price", {"ids": "bitcoin"}, about=About("quotes"))
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 400
    client.close()


def test_429_to_one_worker_stops_all_workers_of_that_source(server: PriceServer, redis_url: str) -> None:
    with connect(redis_url) as client:
        plan = SourcePlan(name="binance", kind="binance", base_url=server.url, instruments={"BTC-USD": "BTCUSDT"})
        allowance = KINDS["binance"].allowance
        workers = [
            open_source(plan, RedisBudget(client, "binance", allowance, patience=0), priority, environ={})
            for priority in Priority
        ]
        server.faults.set("/api", Fault(status=429, headers={"Retry-After": "30"}, body={}))
        with pytest.raises(SourceUnavailableError, match="429"):
            workers[0].quotes(["BTCUSDT"])
        server.faults.clear()
        for worker in workers:
            with pytest.raises(SourceUnavailableError, match="pause") as caught:
                worker.quotes(["BTCUSDT"])
            assert caught.value.retry_after is not None
            assert 25 < caught.value.retry_after <= 31  # a second longer for who is not live
        assert server.requests.total() == 1
        for worker in workers:
            worker.close()


def test_a_refusal_without_a_known_reason_holds_all_workers_from_that_question_alone(
    server: PriceServer, redis_url: str
) -> None:
    with connect(redis_url) as client:
        plan = SourcePlan(name="coinbase", kind="coinbase", base_url=server.url, instruments={"BTC-USD": "BTC-USD"})
        budget = RedisBudget(client, "coinbase", KINDS["coinbase"].allowance, patience=0)
        one, other = (open_source(plan, budget, Priority.LIVE, environ={}) for _ in range(2))
        server.faults.set("/products/BTC-USD/ticker", Fault(status=400, body={"message": "who knows"}))
        answer = one.quotes(["BTC-USD", "ETH-USD"])
        assert ([each.symbol for each in answer.found], answer.refused) == (["ETH-USD"], {})
        assert "who knows" in answer.rejected[0]
        before = server.requests.total()
        assert "has refused the quotes of BTC-USD 1 times in a row" in other.quotes(["BTC-USD"]).rejected[0]
        assert server.requests.total() == before
        client.hset(
            "pp:budget:coinbase:failing", "quotes of BTC-USD, refused", f"9 {time.time() - 90_000} {time.time() - 4000}"
        )
        assert "for 25 hours" in one.quotes(["BTC-USD"]).refused["BTC-USD"]
        server.faults.clear()
        client.hset(
            "pp:budget:coinbase:failing", "quotes of BTC-USD, refused", f"9 {time.time() - 90_000} {time.time() - 4000}"
        )
        assert len(other.quotes(["BTC-USD"]).found) == 1
        assert client.hgetall("pp:budget:coinbase:failing") == {}
        one.close()
        other.close()


def test_with_the_default_budget_a_crowd_never_meets_the_vendors_limit(redis_url: str) -> None:
    with serving(limits=True) as server, connect(redis_url) as client:
        plan = SourcePlan(name="coinbase", kind="coinbase", base_url=server.url, instruments={"BTC-USD": "BTC-USD"})
        found: list[int] = []

        def read() -> None:
            budget = RedisBudget(client, "coinbase", KINDS["coinbase"].allowance)
            source = open_source(plan, budget, Priority.BACKFILL, environ={})
            end = Interval.HOUR.floor(datetime.now(UTC))
            candles = list(
                source.candles("BTC-USD", Interval.HOUR, TimeRange(end - timedelta(hours=2400), end), Rejected())
            )
            found.append(len(candles))
            source.close()

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [2400] * 4
        assert server.requests.total() == 32


def test_the_server_refuses_who_spends_too_much_and_bans_who_goes_on(server: PriceServer) -> None:
    server.meters = Meters(enforced=True)
    for _ in range(2999):
        assert server.meters.spend("binance", 2, NOW.timestamp()) is None
    url = f"{server.url}/api/v3/ticker/24hr?symbol=BTCUSDT"
    answers = [requests.get(url, timeout=5) for _ in range(12)]
    assert [each.status_code for each in answers] == [200] + [429] * 5 + [418] * 6
    assert answers[0].headers["X-MBX-USED-WEIGHT-1M"] == "6000"
    assert int(answers[1].headers["Retry-After"]) == 31
    assert int(answers[-1].headers["Retry-After"]) > 100


def test_the_truth_is_one_whatever_is_asked_and_agrees_over_intervals() -> None:
    truth, day = Truth(), TimeRange(datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 30, tzinfo=UTC))
    for interval in Interval:
        whole = truth.candles("s", "x", "BTC", interval, day, NOW)
        parts = [truth.candles("s", "x", "BTC", interval, each, NOW) for each in day.chunks(timedelta(hours=24))]
        assert [each for part in parts for each in part] == whole
        assert len(whole) == day.candles(interval)
        minutes = truth.candles("s", "x", "BTC", Interval.MINUTE, day, NOW)
        count = interval.seconds // 60
        for number, candle in enumerate(whole):
            within = minutes[number * count : (number + 1) * count]
            assert (candle.open, candle.close) == (within[0].open, within[-1].close)
            assert candle.high == max(each.high for each in within)
            assert candle.low == min(each.low for each in within)
            assert candle.volume == sum(each.volume for each in within)
    assert Truth(1).price("BTC", NOW) != Truth(2).price("BTC", NOW)


def test_three_years_of_days_are_cheap() -> None:
    truth, begun = Truth(), time.process_time()
    years = TimeRange(NOW.replace(hour=0, minute=0, second=0) - timedelta(days=1096), NOW)
    rows = sum(len(truth.candles("s", each, each, Interval.DAY, years, NOW)) for each in list(BASES)[:4])
    assert rows == 1097 * 4
    assert time.process_time() - begun < 6


def test_the_servers_own_process_answers_and_ends_when_told() -> None:
    command = [sys.executable, "-m", "pipeline_platform.local.price_server", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[-1]
        source = _open("demo", url, "BTCUSDT")
        assert len(list(source.candles("BTCUSDT", Interval.HOUR, HOURS, Rejected()))) == 40
        source.close()
        busy = subprocess.run([*command[:-1], url.rsplit(":", 1)[1]], capture_output=True, text=True)
        assert busy.returncode == 1
        assert "Choose another" in busy.stderr
        process.terminate()
        assert process.wait(10) == 0
