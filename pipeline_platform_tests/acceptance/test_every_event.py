"""A known mixture through HTTP: every accepted event is in exactly one place."""

from __future__ import annotations

import json
import random
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import requests

from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import Producer, differences, settled, wait_for


@pytest.mark.timeout(180)
def test_loaded_and_negative_and_dead_letters_are_all_that_was_accepted(up: Up) -> None:
    where = up.status()
    producer = Producer(where["gateway_url"], where["api_key"], random.Random(1))
    for events in (1, 10, 250, 1000, 1, 3):
        producer.send(events)
    assert {request.outcome for request in producer.requests} == {"acknowledged"}
    total = sum(request.events for request in producer.requests)

    wait_for("everything is loaded", lambda: settled(where["warehouse_url"], total), 90)

    assert differences(where["warehouse_url"], producer.requests) == []
    for request in producer.requests:
        answer = requests.get(
            f"{where['gateway_url']}/v1/receipts/{request.receipt}",
            headers={"X-API-Key": where["api_key"]},
            timeout=10,
        ).json()
        assert answer["counts"] == {
            "received": request.events,
            "loaded": len(request.good),
            "negative": len(request.negative),
            "rejected": len(request.invalid),
            "replayed": 0,
        }
        assert answer["run"]["id"]


@pytest.mark.timeout(120)
def test_orders_go_all_the_way_and_a_person_can_ask_for_them(up: Up) -> None:
    where = up.status()
    late = (datetime.now(UTC) - timedelta(days=3)).isoformat()
    events = [
        {"country": "DE", "product": "tea", "amount": 10.5, "quantity": 2},
        {"country": "DE", "product": "tea", "amount": 4.5, "quantity": 1, "ts": late},
        {"country": "FR", "product": "mug", "amount": 12, "quantity": -1},
        {"country": "FR", "product": "mug", "amount": -12, "quantity": 1},
        {"country": "FR", "product": "mug", "amount": 12, "quantity": "one"},
    ]
    answer = requests.post(
        f"{where['gateway_url']}/v1/streams/orders/events?wait=30",
        json=events,
        headers={"Authorization": f"Bearer {where['api_key']}"},
        timeout=40,
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "partial"
    assert answer.json()["counts"] == {"received": 5, "loaded": 2, "negative": 1, "rejected": 2, "replayed": 0}

    shown = up.run("sql", "select country, sum(amount) as amount, count(*) as n from orders group by 1", "--json")
    assert json.loads(shown.stdout) == [{"country": "DE", "amount": 15.0, "n": 2}]
    with psycopg.connect(where["warehouse_readonly_url"]) as connection:
        reasons = connection.execute(
            "select reason, count(*) from dead_letters where stream = 'orders' group by 1 order by 1"
        ).fetchall()
        minutes = connection.execute("select sum(amount_sum), sum(quantity_count) from orders_1m").fetchone()
    assert reasons == [("bad_type", 1), ("negative_rejected", 1)]
    assert minutes == (15.0, 2)


def test_status_names_what_others_rely_on(up: Up) -> None:
    status = up.status()
    for name in (
        "gateway_url",
        "dagster_url",
        "warehouse_url",
        "warehouse_readonly_url",
        "redis_url",
        "api_key",
        "services",
        "streams",
    ):
        assert status[name], name
    assert status["healthy"] is True, status
    assert {"name", "pid", "state", "restarts"} <= set(status["services"][0])
    assert {"postgres", "valkey", "gateway", "code", "worker", "etl", "daemon", "dagster"} == {
        service["name"] for service in status["services"]
    }
    assert {stream["name"] for stream in status["streams"]} == {"orders", "telemetry"}
    assert all("backlog" in stream and "watermark" in stream for stream in status["streams"])


def test_the_metrics_tell_of_runs_and_their_stages(up: Up) -> None:
    where = up.status()
    producer = Producer(where["gateway_url"], where["api_key"], random.Random(2))
    receipt = producer.send(5).receipt
    headers = {"X-API-Key": where["api_key"]}
    url = f"{where['gateway_url']}/v1/receipts/{receipt}"
    under_way = ("queued", "running")
    wait_for(
        "it is loaded", lambda: requests.get(url, headers=headers, timeout=10).json()["state"] not in under_way, 60
    )

    def runs() -> bool:
        text = requests.get(f"{where['gateway_url']}/metrics", timeout=10).text
        lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        stage = lines.get('pipeline_run_stage_seconds{stage="start_to_load",stream="telemetry"}', "0")
        return float(lines['pipeline_runs_per_second{stream="telemetry"}']) > 0 and float(stage) > 0

    wait_for("the run is in the metrics", runs, 30)
    assert requests.get(url, headers=headers, timeout=10).json()["times"]["visible_at"]
    text = requests.get(f"{where['gateway_url']}/metrics", timeout=10).text
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert float(lines["pipeline_dagster_up"]) == 1
    assert float(lines["pipeline_workers_alive"]) == len(
        [service for service in where["services"] if service["name"] in ("worker", "etl")]
    )
    assert float(lines["pipeline_worker_slots"]) >= 2
    assert float(lines['pipeline_tick_average_seconds{sensor="ingest_telemetry_sensor"}']) > 0
    assert time.time() - float(lines['pipeline_daemon_heartbeat_timestamp_seconds{daemon="SENSOR"}']) < 60
    assert float(lines["pipeline_event_log_bytes"]) > 0
    assert float(lines['pipeline_run_stage_seconds{stage="load_to_visible",stream="telemetry"}']) >= 0


def test_dagsters_history_is_vacuumed_early(up: Up) -> None:
    with psycopg.connect(up.dagster_database_url) as connection:
        row = connection.execute("select reloptions from pg_class where relname = 'event_logs'").fetchone()
    assert row is not None
    assert "autovacuum_vacuum_scale_factor=0.02" in row[0]


def test_the_api_docs_need_no_internet(up: Up) -> None:
    base = up.status()["gateway_url"]
    page = requests.get(f"{base}/docs", timeout=10).text
    assert "https://" not in page
    assert requests.get(f"{base}/docs/assets/swagger-ui-bundle.js", timeout=10).status_code == 200
    assert requests.get(f"{base}/openapi.json", timeout=10).json()["openapi"].startswith("3.1")


def test_the_lineage_reads_queue_events_minutes(up: Up) -> None:
    query = "{ assetNodes { assetKey { path } dependencyKeys { path } groupName } }"
    answer = up.graphql(query)
    parents = {
        "/".join(node["assetKey"]["path"]): ["/".join(key["path"]) for key in node["dependencyKeys"]]
        for node in answer["assetNodes"]
    }
    assert parents["warehouse/telemetry_events"] == ["queue/telemetry"]
    assert parents["warehouse/telemetry_1m"] == ["warehouse/telemetry_events"]
