"""A stream's health over HTTP: well, failing, blocked, paused, and resumed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from pipeline_platform.core.breaker import BreakerLimits
from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.warehouse.breakers import Breakers
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline, until

STREAM = "/v1/streams/telemetry"


@pytest.mark.parametrize(("kind", "state"), [(FailureKind.TRANSIENT, "failing"), (FailureKind.PERMANENT, "blocked")])
def test_a_failing_stream_says_what_it_waits_for(
    client: Client, pipeline: Pipeline, kind: FailureKind, state: str
) -> None:
    assert client.get(STREAM).json()["health"]["state"] == "ok"
    client.post([GOOD])
    (row,) = pipeline.plan("telemetry")
    pipeline.start(row)
    again = datetime.now(UTC) + timedelta(seconds=9)
    pipeline.ledger.fail(row.id, Failure(kind, "E", "the disk is full", attempt=1, op="load"), not_before=again)

    health = client.get(STREAM).json()["health"]

    assert (health["state"], health["failing_batches"]) == (state, 1)
    assert health["message"] == "load: the disk is full"
    assert datetime.fromisoformat(health["next_attempt_at"]) == again
    assert client.get("/v1/streams/orders").json()["health"]["state"] == "ok"


def test_a_paused_stream_is_resumed_by_an_admin_alone(
    client: Client, base: str, connected: Callable[..., Client], pipeline: Pipeline
) -> None:
    client.post([{**GOOD, "value": "secret high"}] * 30)
    pipeline.run()
    limits = BreakerLimits(minimum=10)
    Breakers(pipeline.engine).review("telemetry", "warehouse/telemetry_events", limits, datetime.now(UTC))

    health = client.get(STREAM).json()["health"]

    assert (health["state"], health["breaker"]["state"], health["breaker"]["openings"]) == ("paused", "open", 1)
    assert "30 of the last 30 events were rejected" in health["message"]
    assert [example["reason"] for example in health["breaker"]["examples"]] == ["bad_type"] * 3
    assert "secret" not in str(health)

    gauge = 'pipeline_breaker_open{stream="telemetry"}'
    until(lambda: f"{gauge} 1.0" in client.get("/metrics").text, 10, 0.5)

    reader = connected(base, "read")
    assert reader.http.post(f"{base}{STREAM}/resume").status_code == 403
    resumed = client.http.post(f"{base}{STREAM}/resume").json()
    assert (resumed["resumed"], resumed["health"]["state"]) == (True, "ok")
    assert "Resumed by key" in resumed["health"]["breaker"]["reason"]
    assert client.http.post(f"{base}{STREAM}/resume").json()["resumed"] is False
    until(lambda: f"{gauge} 0.0" in client.get("/metrics").text, 10, 0.5)
    assert client.http.post(f"{base}/v1/streams/nope/resume").status_code == 404
