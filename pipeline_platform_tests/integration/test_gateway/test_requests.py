"""Idempotency, strictness, waiting, and how mistakes are answered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline, Shared, until

LINE = orjson.dumps(GOOD)


def test_a_repeat_is_the_same_request(client: Client, pipeline: Pipeline) -> None:
    headers = {"Idempotency-Key": "order 7"}
    first = client.post(LINE, headers=headers)
    again = client.post(LINE + b"\n\n", headers=headers)  # the same events, however they are spaced
    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    other = client.post(orjson.dumps({**GOOD, "value": 2}), headers=headers)
    assert other.status_code == 409
    assert other.json()["receipt"] == first.json()["receipt"]
    pipeline.run()
    assert pipeline.ledger.totals("telemetry").events_read == 1


def test_keys_of_others_do_not_collide(base: str, client: Client, connected: Callable[..., Client]) -> None:
    headers = {"Idempotency-Key": "1"}
    mine = client.post(LINE, headers=headers).json()["receipt"]
    theirs = connected(base, "ingest").post(LINE, headers=headers).json()["receipt"]
    orders = client.post({"country": "DE"}, stream="orders", headers=headers)
    assert orders.status_code == 202
    assert len({mine, theirs, orders.json()["receipt"]}) == 3


def test_concurrent_repeats_and_conflicts_give_one_entry_a_key(base: str, client: Client, pipeline: Pipeline) -> None:
    def send(number: int) -> tuple[int, int, str]:
        sender = Client(base, client.token)
        body = orjson.dumps({**GOOD, "value": number % 2})
        answer = sender.post(body, headers={"Idempotency-Key": f"k{number % 5}"})
        sender.close()
        return number % 5, answer.status_code, answer.json()["receipt"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(send, range(100)))
    for key in range(5):
        mine = [(status, receipt) for of, status, receipt in answers if of == key]
        assert {status for status, _ in mine} == {202, 409}
        assert len({receipt for _, receipt in mine}) == 1
    assert pipeline.queue.position("telemetry").entries == 5


@pytest.mark.parametrize("key", ["", "x" * 201, "tab\there", "ü"])
def test_a_bad_idempotency_key_is_400(shared: Shared, key: str) -> None:
    assert shared.client.post(LINE, headers={"Idempotency-Key": key.encode()}).status_code == 400


def test_strict_refuses_the_whole_request(client: Client, pipeline: Pipeline) -> None:
    events = [
        GOOD,
        {**GOOD, "colour": "red"},
        {"source": "a", "value": 1},
        {**GOOD, "value": "high"},
        {**GOOD, "ts": "2001-01-01T00:00:00Z"},
    ]
    refused = client.post(events, query="?strict=true")
    assert refused.status_code == 422, refused.text
    problem = refused.json()
    assert problem["total"] == 4
    found = [(error["index"], error["code"], error["field"]) for error in problem["errors"]]
    assert found == [
        (1, "unknown_field", "colour"),
        (2, "missing_field", "metric"),
        (3, "bad_type", "value"),
        (4, "ts_out_of_range", "ts"),
    ]
    assert all(error["message"] for error in problem["errors"])
    assert pipeline.queue.position("telemetry").accepted_events == 0
    assert client.post(GOOD, query="?strict=true").status_code == 202
    many = client.post(b"\n".join([b'{"x":1}'] * 5000), query="?strict=1").json()
    assert (many["total"], len(many["errors"])) == (5000, 100)


def test_wait_answers_with_the_outcome(client: Client, pipeline: Pipeline) -> None:
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            pipeline.run()
            time.sleep(0.05)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        done = client.post([GOOD, {**GOOD, "value": -3}], query="?wait=10")
    finally:
        stop.set()
        worker.join()
    assert done.status_code == 200, done.text
    assert done.json()["state"] == "loaded"
    assert done.json()["counts"] == {"received": 2, "loaded": 1, "negative": 1, "rejected": 0, "replayed": 0}
    assert done.headers["Location"] == f"/v1/receipts/{done.json()['receipt']}"


def test_wait_gives_up_politely(client: Client) -> None:
    started = time.monotonic()
    assert client.post(GOOD, query="?wait=0.3").status_code == 202
    assert 0.3 <= time.monotonic() - started < 3


@pytest.mark.parametrize("query", ["?wait=soon", "?wait=-1", "?wait=nan", "?strict=perhaps", "?dry_run=1"])
def test_a_bad_parameter_is_named(shared: Shared, query: str) -> None:
    refused = shared.client.post(GOOD, query=query)
    assert refused.status_code == 422
    assert refused.json()["parameter"] in query


def test_mistakes_get_problem_documents(shared: Shared) -> None:
    client = shared.client
    cases = [
        (client.get("/nothing"), 404),
        (client.http.delete(client.base + "/v1/streams", timeout=10), 405),
        (client.get("/v1/streams/telemetry/events"), 405),
        (client.get("/v1/streams/nope"), 404),
        (client.get("/v1/receipts/nonsense"), 404),
        (client.get("/v1/receipts/nope.1-1"), 404),
        (client.get("/v1/receipts/telemetry.1763712000000-0"), 404),
        (client.get("/v1/receipts/telemetry.1-9999999999999999999"), 404),
        (client.get("/v1/receipts/telemetry.%00-1"), 404),
        (client.post(GOOD, stream="nope"), 404),
        (client.post(GOOD, stream="%00"), 404),
    ]
    for answer, status in cases:
        assert answer.status_code == status, answer.url
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        assert problem.keys() >= {"type", "title", "status", "detail", "instance"}
        assert problem["status"] == status
    assert "orders, telemetry" in client.post(GOOD, stream="nope").json()["detail"]
    assert "Allow" in client.get("/v1/streams/telemetry/events").headers


def test_a_failed_batch_shows_in_its_receipts(client: Client, pipeline: Pipeline) -> None:
    where = client.post(GOOD).headers["Location"]
    (row,) = pipeline.plan("telemetry")
    pipeline.start(row)
    again = datetime.now(UTC) + timedelta(seconds=60)
    failure = Failure(FailureKind.TRANSIENT, "X", "disk full", attempt=1, run_id="run-1")
    pipeline.ledger.fail(row.id, failure, not_before=again)
    failed = client.get(where).json()
    assert failed["state"] == "failed"
    assert failed["error"]["message"] == "disk full"
    assert datetime.fromisoformat(failed["error"]["next_attempt_at"]) == again
    assert failed["counts"]["loaded"] is None


def test_a_request_of_which_nothing_is_good_has_failed(client: Client, pipeline: Pipeline) -> None:
    where = client.post([{"x": 1}, {"y": 2}]).headers["Location"]
    pipeline.run()
    document = client.get(where).json()
    assert document["state"] == "failed"
    assert document["error"] is None
    assert document["counts"]["rejected"] == 2


def test_streams_and_stats(client: Client, pipeline: Pipeline) -> None:
    for number in range(3):
        client.post([{**GOOD, "value": number}, {**GOOD, "value": -1}, {"x": 1}])
    pipeline.run()
    client.post(GOOD)
    streams = client.get("/v1/streams").json()["streams"]
    assert [stream["name"] for stream in streams] == ["orders", "telemetry"]
    assert client.get(streams[1]["links"]["self"]).json()["spec"]["measures"]["value"]["negatives"] == "drop"
    until(lambda: client.get("/v1/streams/telemetry").json()["totals"]["accepted"] == 10, 5)
    telemetry = client.get("/v1/streams/telemetry").json()
    assert telemetry["totals"] == {"accepted": 10, "read": 9, "loaded": 3, "negative": 3, "rejected": 3}
    assert telemetry["backlog_events"] == 1
    assert telemetry["lag_seconds"] > 0
    assert telemetry["last_loaded_at"]
    until(lambda: client.get("/v1/stats").json()["overall"]["backlog_events"] == 1, 5)
    stats = client.get("/v1/stats").json()
    assert stats["streams"]["telemetry"]["totals"] == stats["overall"]["totals"] == telemetry["totals"]
    latency = stats["overall"]["latency_seconds"]
    assert latency["events"] == 9
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] < 30
    assert stats["streams"]["orders"]["latency_seconds"] is None
    assert stats["overall"]["rates"]["loaded"] == pytest.approx(0.05)
