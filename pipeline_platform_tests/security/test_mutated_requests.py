"""Mutated requests against a gateway in a process of its own: no 5xx, no growth, no hang.

PIPELINE_MUTATIONS=50000 is the long form (`make test-security`); the seed is printed.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest
import requests

from pipeline_platform.local.ports import free_port
from pipeline_platform.settings import Settings
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, ROOMY, until
from pipeline_platform_tests.security.edge_kit import Raw
from pipeline_platform_tests.security.mutated_requests import Seed, attack

COUNT = int(os.environ.get("PIPELINE_MUTATIONS", "2000"))
SEED = int(os.environ.get("PIPELINE_FUZZ_SEED", str(time.time_ns() % 10**9)))
GROWTH = 24 * 2**20  # the allocator's noise; a leak of two kilobytes a request is more in the long form


@pytest.fixture
def own_gateway(settings: Settings) -> Iterator[tuple[str, int]]:
    """The base URL and the process of a gateway that nobody else uses."""
    port = free_port()
    environment = os.environ | {
        "REDIS_URL": settings.redis_url or "",
        "DATABASE_URL": settings.database_url or "",
        "PIPELINE_PORT": str(port),
        "PIPELINE_CONNECTIONS_PER_ADDRESS": "1000",
        **{f"PIPELINE_{name.upper()}": str(value) for name, value in ROOMY.items()},
    }
    process = subprocess.Popen([sys.executable, "-m", "pipeline_platform.gateway"], env=environment)
    base = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return requests.get(f"{base}/readyz", timeout=2).status_code == 200
        except requests.ConnectionError:
            return False

    try:
        until(answers, 30, 0.1)
        yield base, process.pid
    finally:
        process.terminate()
        assert process.wait(30) in (0, -15)  # uvicorn ends as the signal says


def resident(pid: int) -> int:
    """Bytes of memory that a process holds."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def seeds(token: str) -> list[Seed]:
    """Requests of every kind that the gateway takes."""
    key = f"Authorization: Bearer {token}"
    events = [{**GOOD, "value": number} for number in range(3)]
    lines = b"\n".join(map(orjson.dumps, events))
    paths = [
        "/v1/stats", "/v1/streams", "/v1/streams/telemetry", "/v1/assets?limit=5&kind=ingest", "/v1/assets/1",
        "/v1/streams/telemetry/aggregates?limit=5&where.source=a&format=csv", "/v1/dead-letters?text=x&state=open",
        "/v1/dead-letters/export?reason=bad_type", "/v1/receipts/telemetry.1763712000000-0", "/v1/alerts",
        "/v1/replays",
        "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/assets/favicon.png",
    ]  # fmt: skip
    posts = [
        ("/v1/streams/telemetry/events", "application/x-ndjson", lines),
        ("/v1/streams/telemetry/events?strict=true", "application/json", orjson.dumps(events)),
        ("/v1/streams/orders/events", "application/json", b'{"country":"DE","amount":1}'),
        ("/v1/dead-letters/replay", "application/json", b'{"stream":["telemetry"],"note":"n","dry_run":true}'),
        ("/v1/dead-letters/discard", "application/json", b'{"ids":[1,2],"note":"n"}'),
        ("/v1/assets/1/replay", "application/json", b'{"note":"n"}'),
        ("/v1/streams/telemetry/resume", "application/json", b""),
    ]
    found = [Seed("GET", path, (key,)) for path in paths]
    found += [Seed("POST", path, (key, f"Content-Type: {kind}"), body) for path, kind, body in posts for _ in range(3)]
    return found


def test_a_head_without_end_costs_the_gateway_nothing(own_gateway: tuple[str, int]) -> None:
    base, pid = own_gateway
    port = urlsplit(base).port or 0
    sizes = [resident(pid)]
    for most in (32 * 2**20, 64 * 2**20):  # twice as much costs no more
        for start, piece in ((b"GET / HTTP/1.1\r\nx: ", b"a" * 2**16), (b"GET /", b"a" * 2**16)):
            with Raw(port) as raw:
                raw.send(start)
                assert raw.flood(piece, most) < 16 * 2**20
        sizes.append(resident(pid))
    assert max(sizes) - sizes[0] < 8 * 2**20, sizes
    page = requests.get(f"{base}/metrics", timeout=10).text
    assert 'pipeline_refused_connections_total{kind="head-too-large"} 4.0' in page


def test_as_many_files_may_be_open_as_the_machine_lets() -> None:
    code = (
        "import resource as r; from pipeline_platform.access.open_files import raise_open_files;"
        "r.setrlimit(r.RLIMIT_NOFILE, (256, 2000)); print(raise_open_files(), r.getrlimit(r.RLIMIT_NOFILE)[0])"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["2000", "2000"]


@pytest.mark.timeout(3600)
def test_mutated_requests_do_no_harm(own_gateway: tuple[str, int], token_for: Callable[..., str]) -> None:
    print(f"PIPELINE_FUZZ_SEED={SEED}")
    base, pid = own_gateway
    good = seeds(token_for("admin", "ingest", "read"))
    quarter = COUNT // 4
    asyncio.run(attack(base, good, "/healthz", quarter, SEED))  # code is loaded, pools are filled
    sizes, statuses = [resident(pid)], []
    for part in (1, 2, 3):
        report = asyncio.run(attack(base, good, "/healthz", quarter, SEED + part))
        assert report.failures == []
        sizes.append(resident(pid))
        statuses.append(report.statuses)
    print(sizes, statuses)
    together = sum(statuses[1:], statuses[0])
    assert together[200] > 20 * COUNT / 2000
    assert together[202] > 5 * COUNT / 2000
    assert together[400] > 50 * COUNT / 2000
    assert sizes[3] - sizes[1] < GROWTH
