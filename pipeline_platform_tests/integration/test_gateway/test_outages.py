"""The queue full, away, killed; the warehouse away: 503 with an honest Retry-After, then recovery."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from pipeline_platform.core.entries import ZERO, Entry
from pipeline_platform.local.accounts import server_account
from pipeline_platform.local.supervisor import Supervisor
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.settings import Settings
from pipeline_platform_tests.conftest import make_state_dir
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline, serving, until

Connected = Callable[..., Client]


@pytest.fixture(scope="module")
def own_valkey() -> Iterator[ValkeyServer]:
    """A Valkey that a test may kill; its supervisor starts it again."""
    folder = make_state_dir()
    server = ValkeyServer.prepare(folder, server_account(), max_memory=64 * 2**20)
    supervisor = Supervisor([server.service()], lambda name, line: None, folder)
    supervisor.start()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            supervisor.watch_once()

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield server
    over.set()
    watcher.join()
    supervisor.stop()
    shutil.rmtree(folder.parent)


@pytest.fixture
def own(own_valkey: ValkeyServer) -> Iterator[redis.Redis]:
    """A client of it, with its memory limit as it was."""
    client = connect_queue(own_valkey.url())
    client.flushall()
    yield client
    client.close()


@pytest.fixture
def own_client(own: redis.Redis, own_valkey: ValkeyServer, database_url: str) -> Iterator[Client]:
    """An admin of a gateway on it."""
    _, token = KeyStore(own).create("test", ["admin"])
    with serving(Settings.load(database_url=database_url, redis_url=own_valkey.url())) as base:
        client = Client(base, token)
        until(lambda: client.get("/readyz").status_code == 200, 10)
        yield client
        client.close()


def test_a_full_backlog_is_503_until_it_drains(settings: Settings, connected: Connected, pipeline: Pipeline) -> None:
    with serving(settings.model_copy(update={"backlog_max_events": 20})) as base:
        client = connected(base, "admin")
        assert client.post([GOOD] * 25).status_code == 202
        until(lambda: client.post().status_code == 503, 5)
        refused = client.post()
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert 1 <= int(refused.headers["Retry-After"]) <= 300
        assert client.post({"country": "DE"}, stream="orders").status_code == 202
        pipeline.run()
        until(lambda: client.post().status_code == 202, 5)


def test_out_of_memory_is_503_and_recovers(own: redis.Redis, own_client: Client) -> None:
    limit = str(own.config_get("maxmemory")["maxmemory"])
    own.config_set("maxmemory", "1mb")
    try:
        refused = own_client.post()
        assert refused.status_code == 503, refused.text
        assert 1 <= int(refused.headers["Retry-After"]) <= 300
        until(lambda: "memory is at its limit" in own_client.post().json()["detail"], 5)
        assert own_client.get("/v1/streams").status_code == 200
    finally:
        own.config_set("maxmemory", limit)
    until(lambda: own_client.post().status_code == 202, 5)


def test_a_killed_valkey_is_503_and_nothing_acknowledged_is_lost(own: redis.Redis, own_client: Client) -> None:
    acknowledged = [own_client.post().json()["receipt"] for _ in range(20)]
    pid = int(own.info("server")["process_id"])
    os.kill(pid, signal.SIGKILL)
    refused = own_client.post()
    assert refused.status_code == 503
    assert int(refused.headers["Retry-After"]) >= 1
    assert own_client.get("/healthz").status_code == 200
    until(lambda: own_client.post().status_code == 202, 20)
    entries = [str(entry.id) for entry in _all(own)]
    assert [receipt.split(".")[1] for receipt in acknowledged] == entries[:20]


def _all(client: redis.Redis) -> list[Entry]:
    queue = RedisStreams(client)
    until(lambda: _answers(client), 10)
    return list(queue.read("telemetry", ZERO, queue.position("telemetry").last_id))


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def test_events_are_accepted_while_the_warehouse_is_away(settings: Settings, connected: Connected) -> None:
    away = settings.model_copy(update={"database_url": "postgresql://u:hunter2@127.0.0.1:1/none"})
    with serving(away) as base:
        client = connected(base, "admin")
        assert client.post().status_code == 202
        assert client.post(query="?wait=0.2").status_code == 202
        for path in ("/v1/stats", "/v1/streams/telemetry", "/v1/streams/telemetry/aggregates"):
            answer = client.get(path)
            assert answer.status_code == 503, path
            assert "hunter2" not in answer.text
            assert int(answer.headers["Retry-After"]) >= 1
        assert client.get("/v1/streams").status_code == 200
        until(lambda: client.get("/readyz").json()["ingest"], 5)
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["The warehouse cannot be reached."])


def test_a_warehouse_that_is_not_migrated_is_said(settings: Settings, connected: Connected) -> None:
    empty = str(settings.database_url).rsplit("/", 1)[0] + "/template1"
    with serving(settings.model_copy(update={"database_url": empty})) as base:
        client = connected(base, "admin")
        until(lambda: client.get("/readyz").json()["ingest"], 5)
        assert "migrate" in client.get("/readyz").json()["reasons"][0]
        assert client.get("/v1/stats").status_code == 503


def test_it_starts_without_servers_and_says_so(settings: Settings) -> None:
    nowhere = settings.model_copy(update={"redis_url": "redis://:hunter2@127.0.0.1:1/0"})
    with serving(nowhere) as base:
        client = Client(base, "pp_00000000_" + "a" * 32)
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json()["ingest"] is False
        answer = client.post()
        assert answer.status_code == 503
        assert "hunter2" not in answer.text + client.get("/readyz").text
        client.close()


def test_what_was_accepted_is_finished_on_shutdown(
    settings: Settings, connected: Connected, pipeline: Pipeline
) -> None:
    statuses: list[int] = []
    with serving(settings) as base:
        token = connected(base, "ingest").token

        def send(_: int) -> None:
            client = Client(base, token)
            statuses.append(client.post().status_code)
            client.close()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(send, range(40)))
    assert statuses.count(202) == pipeline.queue.position("telemetry").accepted_events == 40


def test_who_waits_during_a_shutdown_still_gets_the_receipt(settings: Settings, connected: Connected) -> None:
    with ThreadPoolExecutor(1) as pool, serving(settings) as base:
        client = connected(base, "ingest")
        assert client.post().status_code == 202
        waiting = pool.submit(client.post, query="?wait=30")
        time.sleep(0.3)
    assert waiting.result().status_code == 202
