"""The price server: real HTTP on this machine, all venues at one address, told apart by their paths."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pipeline_platform.local.price_server import exchanges, rates
from pipeline_platform.local.price_server.faults import Fault, Faults
from pipeline_platform.local.price_server.meters import Meters
from pipeline_platform.local.price_server.replies import Asked, Reply
from pipeline_platform.local.price_server.truth import Truth

ROUTES: list[tuple[str, str, Callable[[Asked], Reply]]] = [
    ("binance", r"/api/v3/klines", exchanges.binance_klines),
    ("binance", r"/api/v3/ticker/24hr", exchanges.binance_day),
    ("coinbase", r"/products/[^/]+/candles", exchanges.coinbase_candles),
    ("coinbase", r"/products/[^/]+/ticker", exchanges.coinbase_ticker),
    ("kraken", r"/0/public/OHLC", exchanges.kraken_ohlc),
    ("kraken", r"/0/public/Trades", exchanges.kraken_trades),
    ("coingecko", r"/api/v3/simple/price", rates.simple_price),
    ("coingecko", r"/api/v3/coins/[^/]+/market_chart/range", rates.market_chart_range),
    ("rates", r"/v2/rates", rates.rates_v2),
    ("rates", r"/v1/(latest|[-0-9]+\.\.[-0-9]*)", rates.rates_v1),
    ("rates", r"/service/data/EXR/D\.[^/.]+\.EUR\.SP00\.A", rates.ecb_series),
]


class PriceServer:
    """A running server at `url`. `requests` counts what was asked, by path; `faults` makes it misbehave."""

    def __init__(
        self,
        truth: Truth | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        limits: bool = False,
    ) -> None:
        self.truth = truth or Truth()
        self.clock = clock
        self.faults = Faults()
        self.meters = Meters(limits)
        self.requests: Counter[str] = Counter()
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] | None = None  # set to [] to keep them all
        self.last_trades: dict[str, datetime] = {}  # of pairs that nobody trades any more
        self.unknown: set[str] = set()  # symbols that Binance has taken away
        self._lock = threading.Lock()
        self._server = _Server((host, port), _handler(self))
        self.url = f"http://{host}:{self._server.server_port}"

    def serve(self) -> None:
        """Answers until `stop`."""
        self._server.serve_forever(poll_interval=0.05)

    def stop(self) -> None:
        """Ends `serve` and every hanging answer."""
        self.faults.over.set()
        self._server.shutdown()
        self._server.server_close()

    def close(self) -> None:
        """Gives the port back, of a server that does not serve."""
        self._server.server_close()

    def answer(self, target: str, headers: dict[str, str]) -> tuple[Reply, Fault]:
        """The answer to a request, and what is to go wrong with it."""
        parts = urlsplit(target)
        path, query = unquote(parts.path), dict(parse_qsl(parts.query))
        with self._lock:
            self.requests[path] += 1
            if self.asked is not None:
                self.asked.append((path, query, headers))
        fault = self.faults.next(path)
        if fault.status is not None:
            return Reply(fault.body, fault.status, fault.headers), fault
        reply = self._truthful(path, query)
        if fault.change is not None:
            reply = Reply(fault.change(reply.body), reply.status, {**reply.headers, **fault.headers}, reply.weight)
        return reply, fault

    def _truthful(self, path: str, query: dict[str, str]) -> Reply:
        now = self.clock()
        for venue, pattern, handle in ROUTES:
            if re.fullmatch(pattern, path):
                try:
                    reply = handle(Asked(path, query, self.truth, now, self.last_trades, self.unknown))
                except (KeyError, ValueError, TypeError, OverflowError) as error:
                    reply = Reply({"message": f"{type(error).__name__}: {error}"}, 400)
                refusal = self.meters.spend(venue, reply.weight, now.timestamp())
                if venue == "binance":
                    used = {"X-MBX-USED-WEIGHT-1M": str(self.meters.used(venue))}
                    reply = Reply(reply.body, reply.status, {**reply.headers, **used})
                return refusal or reply
        return Reply({"message": "There is no such path; see docs/prices.md."}, 404)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """An asker that went away is no error."""


def _handler(server: PriceServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 60
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            reply, fault = server.answer(self.path, dict(self.headers.items()))
            if fault.hang:
                server.faults.over.wait(fault.hang)
            if fault.drop:
                self.close_connection = True
                return
            body = reply.body.encode() if isinstance(reply.body, str) else _json(reply.body)
            announced = int(len(body) * fault.keep) if fault.quiet else len(body)
            with contextlib.suppress(OSError):
                self.send_response(reply.status)
                headers = {"Content-Type": "application/json", "Content-Length": str(announced), **reply.headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body[: int(len(body) * fault.keep)])
            if fault.keep < 1:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Nothing: a line for each request would bury what `up` shows."""

    return Handler


def _json(value: Any) -> bytes:
    return b"" if value is None else json.dumps(value, separators=(",", ":")).encode()


@contextlib.contextmanager
def serving(truth: Truth | None = None, **options: Any) -> Iterator[PriceServer]:
    """A price server while the block runs, for tests and benchmarks; the options are PriceServer's."""
    server = PriceServer(truth, **options)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join()
