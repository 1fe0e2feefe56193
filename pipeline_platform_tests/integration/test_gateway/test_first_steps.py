"""The shortest way: POST, receipt, outcome."""

from __future__ import annotations

from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline, until


def test_an_event_is_accepted_and_followed_into_the_warehouse(client: Client, pipeline: Pipeline) -> None:
    accepted = client.post([GOOD, {**GOOD, "value": -1}, {**GOOD, "value": "high"}])
    assert accepted.status_code == 202, accepted.text
    document = accepted.json()
    assert document["accepted"] == 3
    assert document["stream"] == "telemetry"
    assert accepted.headers["Location"] == f"/v1/receipts/{document['receipt']}" == document["links"]["receipt"]

    queued = client.get(accepted.headers["Location"]).json()
    assert queued["state"] == "queued"
    assert queued["counts"] == {"received": 3, "loaded": None, "negative": None, "rejected": None, "replayed": None}

    (row,) = pipeline.plan("telemetry")
    assert client.get(accepted.headers["Location"]).json()["state"] == "queued"
    pipeline.start(row, "run-7")
    running = client.get(accepted.headers["Location"]).json()
    assert running["state"] == "running"
    assert running["run"] == {"id": "run-7", "url": "http://dagster.test:3000/runs/run-7"}

    pipeline.load(row, "run-7")
    outcome = client.get(accepted.headers["Location"]).json()
    assert outcome["state"] == "partial"
    assert outcome["counts"] == {"received": 3, "loaded": 1, "negative": 1, "rejected": 1, "replayed": 0}
    assert outcome["batch"]["id"] == row.id
    assert document["receipt"].startswith(f"{outcome['batch']['first_receipt']}.")
    assert outcome["receipt"] == document["receipt"]
    assert all(outcome["times"].values())


def test_health_needs_no_key_and_says_what_is_missing(base: str, client: Client) -> None:
    anonymous = Client(base)
    assert anonymous.get("/healthz").json() == {"status": "ok"}
    until(lambda: anonymous.get("/readyz").status_code == 200, 5)
    assert anonymous.get("/readyz").json() == {"ready": True, "ingest": True, "reasons": []}
    assert client.post().status_code == 202
    metrics = anonymous.get("/metrics").text
    assert 'pipeline_accepted_events_total{stream="telemetry"} 1.0' in metrics
    assert 'method="POST",route="/v1/streams/{stream}/events",status="202"} 1.0' in metrics
    assert 'method="GET",route="/readyz",status="200"}' in metrics
    assert anonymous.get("/docs").status_code == 200
    assert "/v1/streams/{stream}/events" in anonymous.get("/openapi.json").json()["paths"]
    anonymous.close()
