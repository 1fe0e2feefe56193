"""What the front door refuses, and whom it lets wait: names, repeated headers, floods of reads and of refusals."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import orjson
import pytest
import requests
import sqlalchemy as sa

from pipeline_platform.errors import WarehouseUnavailableError
from pipeline_platform.gateway import front, readiness
from pipeline_platform.gateway.access import scoped
from pipeline_platform.gateway.buckets import Buckets
from pipeline_platform.gateway.fresh import Fresh
from pipeline_platform.gateway.hosts import AllowedHosts
from pipeline_platform.gateway.places import Places
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform.settings import Settings
from pipeline_platform_tests.integration.test_gateway.kit import Client, serving
from pipeline_platform_tests.security.edge_kit import Raw, get, post

LIMITS = ("rate_limit_reads", "rate_limit_open", "rate_limit_probes", "rate_limit_refusals")


@pytest.fixture
def stock(settings: Settings) -> Settings:
    """Settings with the limits as they are by default."""
    return settings.model_copy(update={name: Settings.model_fields[name].default for name in LIMITS})


@pytest.fixture
def strict(stock: Settings) -> Iterator[str]:
    """A gateway with them."""
    with serving(stock.model_copy(update={"allowed_hosts": ("gateway", ".example.com")})) as url:
        yield url


def ask(base: str, request: bytes) -> tuple[int, dict[str, object]]:
    """Status and JSON of one raw request."""
    with Raw(urlsplit(base).port or 0) as raw:
        raw.send(request)
        status, body = raw.answer()
    return status, orjson.loads(body) if body[:1] == b"{" else {}


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200),
        ("127.0.0.1:8400", 200),
        ("192.0.2.7:80", 200),
        ("[::1]:8000", 200),
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("gateway:8000", 200),
        ("a.b.example.com", 200),
        ("example.com.", 421),
        ("evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("localhost.evil.example", 421),
        ("evil.example#127.0.0.1", 421),
        ("user@localhost", 421),
        ("xexample.com", 421),
        ("0x7f.1", 421),
        ("\xe9", 421),
        (" ", 400),
    ],
)
def test_only_names_of_the_gateway_are_answered(strict: str, host: str, status: int) -> None:
    found, problem = ask(strict, get("/readyz", host=host))
    assert found in ((200, 503) if status == 200 else (status,))
    if status == 421:
        assert problem["type"] == "urn:pipeline-platform:problem:misdirected"
    assert ask(strict, get("/healthz", host=host))[0] == 200, "probes call it anything"
    assert ask(strict, post("/v1/streams/telemetry/events", b"{}", host=host))[0] == (401 if status == 200 else status)


def test_no_host_is_no_request_but_of_old_clients(strict: str) -> None:
    assert ask(strict, b"GET /readyz HTTP/1.1\r\n\r\n")[0] == 400
    assert ask(strict, b"GET /readyz HTTP/1.0\r\n\r\n")[0] in (200, 503)


def test_any_name_may_be_allowed() -> None:
    assert AllowedHosts(["*"]).allow(b"evil.example")
    assert not AllowedHosts([]).allow(b"evil.example")


@pytest.mark.parametrize(
    "repeated",
    ["Host: 127.0.0.1", "Authorization: Bearer x", "X-API-Key: x", "Content-Type: application/json"],
)
def test_what_counts_once_may_be_given_once(base: str, client: Client, repeated: str) -> None:
    headers = [f"Authorization: Bearer {client.token}", "X-API-Key: x", "Content-Type: application/json"]
    body = b'{"source":"a","metric":"b","value":1}'
    assert ask(base, post("/v1/streams/telemetry/events", body, *headers))[0] == 202
    status, problem = ask(base, post("/v1/streams/telemetry/events", body, *headers, repeated))
    assert (status, problem["type"]) == (400, "urn:pipeline-platform:problem:bad-header")


def statuses(
    base: str, path: str, count: int, headers: dict[str, str] | None = None, method: str = "GET"
) -> Counter[int]:
    """What `count` requests at once, eight at a time, are answered."""

    def one(_: int) -> int:
        return requests.request(method, base + path, headers=headers, timeout=30).status_code

    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(one, range(count)))


def test_reads_of_a_key_are_limited_and_ingest_is_not(strict: str, connected: Callable[..., Client]) -> None:
    reader, other, sender = (connected(strict, scope) for scope in ("read", "read", "ingest"))
    headers = {"Authorization": f"Bearer {reader.token}"}
    found = statuses(strict, "/v1/stats", 250, headers, "HEAD")  # which costs what a GET does
    assert found[429] > 50
    assert found[200] >= 100, "a burst is fine"
    refused = reader.get("/v1/stats")
    while refused.status_code == 200:
        refused = reader.get("/v1/stats")
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.headers["RateLimit-Limit"] == "100"
    assert other.get("/v1/stats").status_code == 200, "another key has its own"
    assert {sender.post().status_code for _ in range(150)} == {202}


def test_a_read_that_is_admitted_says_what_is_left(strict: str, connected: Callable[..., Client]) -> None:
    client = connected(strict, "read")
    for path in ("/v1/stats", "/v1/assets", "/v1/streams/telemetry/aggregates?format=csv"):
        assert 0 < int(client.get(path).headers["RateLimit-Remaining"]) < 100


@pytest.mark.parametrize(
    ("limit", "tokens"),
    [
        ("", 1),
        ("100", 2),
        ("1000", 11),
        ("0000001000", 101),
        ("1000.0", 101),
        ("+1000", 101),
        ("x", 101),
        ("\xb2", 101),
    ],
)
def test_a_long_page_costs_as_many_reads_as_it_has_hundreds(limit: str, tokens: float) -> None:
    assert scoped("read")._tokens(limit) == tokens


def test_buckets_fill_with_time_and_cost_what_is_asked() -> None:
    now = [0.0]
    buckets = Buckets(10, 20, clock=lambda: now[0])
    assert [buckets.take("a").allowed for _ in range(21)] == [True] * 20 + [False]
    assert buckets.take("b", 15).allowed
    assert not buckets.take("b", 6).allowed
    now[0] += 0.1
    assert [buckets.take("a").allowed for _ in range(2)] == [True, False]
    refused = buckets.take("b", 15)
    assert (refused.allowed, round(refused.reset, 6)) == (False, 0.9)
    now[0] += 100
    assert buckets.take("b", 10_000).allowed, "what never fits costs all there is"
    assert buckets.take("b").remaining == 0


def test_what_needs_no_key_is_limited_but_probes_are_not_refused(strict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(front, "SLOWED_SECONDS", 0.05)
    monkeypatch.setattr(front, "PROBE_SECONDS", 0.05)
    found = statuses(strict, "/openapi.json", 20) + statuses(strict, "/docs", 20, method="HEAD")
    found += statuses(strict, "/v1/stats", 20, method="OPTIONS")
    assert 25 <= found[200] + found[204] < 60
    assert found[429] == 60 - found[200] - found[204]
    assert statuses(strict, "/healthz", 150, method="HEAD") == {200: 150}
    assert 429 not in statuses(strict, "/readyz", 150)


def test_many_refusals_come_later_and_few_do_not(strict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(_: front.FrontDoor, pause: float) -> None:
        slept.append(pause)

    monkeypatch.setattr(front.FrontDoor, "_sleep", sleep)
    assert statuses(strict, "/v1/stats", 20) == {401: 20}
    assert slept == []
    assert statuses(strict, "/v1/stats", 40) == {401: 40}
    assert len(slept) > 10
    assert set(slept) == {front.SLOWED_SECONDS}


def test_so_many_lists_at_once_and_then_a_429() -> None:
    places = Places(4)
    go, at_work = threading.Event(), threading.Semaphore(0)

    def work() -> None:
        with places.place():
            at_work.release()
            go.wait(10)

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work) for _ in range(4)]
        for _ in working:
            assert at_work.acquire(timeout=10)
        with pytest.raises(ProblemError) as refused, places.place():
            pass
        assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
        go.set()
        for done in working:
            done.result(10)
    with places.place():
        pass


def test_what_is_costly_is_made_once_for_all_who_ask() -> None:
    made: list[int] = []
    now = [0.0]

    def make() -> int:
        time.sleep(0.02)
        made.append(1)
        return len(made)

    async def run() -> list[int]:
        with ThreadPoolExecutor(2) as pool:
            fresh = Fresh(make, pool, clock=lambda: now[0])
            first = await asyncio.gather(*(fresh.read() for _ in range(100)))
            now[0] = 0.9
            first.append(await fresh.read())
            now[0] = 1.1
            return [*first, await fresh.read()]

    assert asyncio.run(run()) == [1] * 101 + [2]


def test_readiness_asks_the_warehouse_once_a_second(strict: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def check(engine: sa.Engine) -> None:
        asked.append(engine)
        raise WarehouseUnavailableError("away")

    monkeypatch.setattr(readiness, "check_migrated", check)
    began = time.monotonic()
    assert statuses(strict, "/readyz", 50)[503] >= 40
    assert 1 <= len(asked) <= 2 + (time.monotonic() - began)


def test_the_document_is_made_once(base: str) -> None:
    first, second = (requests.get(f"{base}/openapi.json", timeout=30) for _ in range(2))
    assert first.content == second.content
    assert "/v1/streams/{stream}/events" in first.json()["paths"]


def test_the_docs_cannot_be_framed(base: str) -> None:
    page = requests.get(f"{base}/docs", timeout=30)
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    for path in ("/docs", "/healthz", "/v1/stats"):
        assert requests.get(base + path, timeout=30).headers["X-Frame-Options"] == "DENY"
