"""Every implementation of Queue, and every source, so that one suite holds them all to the protocol."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import redis

from pipeline_platform.local.price_server.server import PriceServer, serving
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.memory import MemoryQueue
from pipeline_platform.queue.protocol import Queue
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.sources.protocol import Source
from pipeline_platform_tests.contract.price_cases import NOW, Case, Purse


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of an empty database on a real server."""
    with connect(redis_url) as client:
        yield client


@pytest.fixture
def streams(client: redis.Redis) -> RedisStreams:
    """The queue on a real server."""
    return RedisStreams(client)


@pytest.fixture(params=["memory", "redis"])
def queue(request: pytest.FixtureRequest) -> Queue:
    """Each implementation in turn; the clock of the one in memory stands still for three appends at a time."""
    if request.param == "memory":
        ticks = itertools.count()
        return MemoryQueue(lambda: 1_763_712_000_000 + next(ticks) // 3)
    queue: RedisStreams = request.getfixturevalue("streams")
    return queue


@pytest.fixture(scope="module")
def running() -> Iterator[PriceServer]:
    """One server for the module; its clock stands still."""
    with serving(clock=lambda: NOW) as server:
        yield server


@pytest.fixture
def server(running: PriceServer) -> PriceServer:
    """The server, well-behaved and with its counters at zero."""
    running.faults.clear()
    running.requests.clear()
    running.asked = []
    running.last_trades.clear()
    return running


@pytest.fixture
def purse() -> Purse:
    """A budget without limits."""
    return Purse()


@pytest.fixture
def source(case: Case, server: PriceServer, purse: Purse) -> Iterator[Source]:
    """The source of the case."""
    source = case.open(server, purse)
    yield source
    source.close()
