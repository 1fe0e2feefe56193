"""From the outbox to a receiver through Dagster: the sensor asks, the run tells, and both say what they did."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from pipeline_platform.errors import SettingError
from pipeline_platform.orchestration import resources
from pipeline_platform.orchestration.definitions import definitions
from pipeline_platform.warehouse.alerts import Alert, raise_alert, resolve_alert
from pipeline_platform.warehouse.engine import connect
from pipeline_platform_tests.integration.batches import execute, rows
from pipeline_platform_tests.integration.receiver import Receiver, Reply, receiving

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]


@dataclass
class Stack:
    """The shipped definitions over a warehouse, a receiver, and a file of routes that leads there."""

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    engine: sa.Engine
    receiver: Receiver
    file: Path

    def tick(self) -> dg.RunRequest | str:
        """What the sensor asks for, or why it does not."""
        sensor = self.definitions.get_repository_def().get_sensor_def("deliver_alerts_sensor")
        with dg.build_sensor_context(self.instance, resources=self.definitions.resources) as context:
            data = sensor.evaluate_tick(context)
        if data.run_requests:
            return data.run_requests[0]
        return data.skip_message or ""

    def run(self) -> dg.ExecuteInProcessResult:
        """The run that it asks for."""
        request = self.tick()
        assert isinstance(request, dg.RunRequest), request
        job = self.definitions.get_repository_def().get_job("deliver_alerts")
        return job.execute_in_process(run_config=request.run_config, instance=self.instance, raise_on_error=False)

    def raise_(self, count: int, **fields: Any) -> None:
        """Raises alerts, longer ago than any digest window."""
        with self.engine.begin() as connection:
            for number in range(count):
                raise_alert(
                    connection, Alert(f"k{number}", "batch_failing", "warning", f"alert {number}", "body", **fields)
                )
        execute(self.engine, "update alerts set raised_at = raised_at - interval '1 minute' where times = 1")


@pytest.fixture
def stack(warehouse_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """A stack whose one route leads to the receiver."""
    file = tmp_path / "alerts.yaml"
    monkeypatch.setenv("DATABASE_URL", warehouse_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("PIPELINE_ALERTS_FILE", str(file))
    monkeypatch.setenv("PIPELINE_ALERTS_ALLOW_PRIVATE", "true")
    shipped = definitions()
    assert isinstance(shipped, dg.Definitions)
    engine = connect(warehouse_url)
    with receiving() as receiver, dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setenv("TEAM_WEBHOOK", receiver.url)
        file.write_text("routes:\n  - {name: team, url_env: TEAM_WEBHOOK, format: discord}\n")
        yield Stack(shipped, instance, engine, receiver, file)
    engine.dispose()
    resources._engine(warehouse_url, os.getpid()).dispose()


def test_five_hundred_failures_are_one_message_and_one_run(stack: Stack) -> None:
    stack.raise_(500, sample=[{"reason": "type", "payload": "x" * 10_000}], stream="orders")
    result = stack.run()
    assert result.success
    (message,) = stack.receiver.got
    assert "500 alerts (500 warning)" in message["content"]
    assert "495 more" in message["content"]
    (done,) = [event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"]
    metadata = done.event_specific_data.metadata  # type: ignore[union-attr]
    assert (metadata["messages"].value, metadata["sent"].value, metadata["alerts"].value) == (1, 1, 500)
    assert stack.tick() == "Nothing is due to 1 route(s)."
    assert rows(stack.engine, "select state, count(*) from alert_deliveries group by 1") == [("sent", 500)]


def test_a_recovery_is_told(stack: Stack) -> None:
    stack.raise_(1)
    stack.run()
    with stack.engine.begin() as connection:
        assert resolve_alert(connection, "k0")
    assert isinstance(stack.tick(), str), "within the digest window"
    execute(stack.engine, "update alerts set resolved_at = resolved_at - interval '11 seconds'")
    stack.run()
    assert stack.receiver.got[1]["content"].startswith("🟢 **Recovered: alert 0")


def test_a_pause_that_is_asked_for_is_kept_and_nothing_is_lost(stack: Stack) -> None:
    stack.raise_(1)
    stack.receiver.reply = Reply(429, b'{"retry_after": 64.5}')
    assert stack.run().success, "a receiver that is busy is no failure of ours"
    assert stack.tick() == "Nothing is due to 1 route(s)."
    ((seconds,),) = rows(stack.engine, "select extract(epoch from not_before - now())::float8 from alert_deliveries")
    assert 55 < seconds < 65
    execute(stack.engine, "update alert_deliveries set not_before = now()")
    stack.receiver.reply = Reply(204)
    stack.run()
    assert len(stack.receiver.got) == 2


def test_a_global_pause_holds_for_every_route_to_that_host(stack: Stack) -> None:
    stack.file.write_text(
        "routes:\n"
        "  - {name: one, url_env: TEAM_WEBHOOK, format: discord}\n"
        "  - {name: two, url_env: TEAM_WEBHOOK, format: json}\n"
    )
    stack.raise_(1)
    stack.receiver.reply = Reply(429, b'{"retry_after": 30, "global": true}')
    stack.run()
    assert len(stack.receiver.got) == 1
    found = rows(
        stack.engine, "select route, state, not_before > now() + interval '20 s' from alert_deliveries order by 1"
    )
    assert found == [("one", "pending", True), ("two", "pending", True)]


def test_a_refusal_fails_the_run_and_other_routes_are_told(stack: Stack) -> None:
    with receiving() as other:
        stack.file.write_text(
            "routes:\n"
            f"  - {{name: gone, url: '{other.url}', format: json}}\n"
            "  - {name: team, url_env: TEAM_WEBHOOK, format: json}\n"
        )
        other.reply = Reply(404, b'{"message": "Unknown Webhook"}')
        stack.raise_(1)
        result = stack.run()
    assert not result.success
    assert [event for event in result.all_events if "404: Unknown Webhook" in str(event)]
    (message,) = stack.receiver.got
    assert (message["version"], message["headline"]) == (1, "alert 0")
    states = rows(stack.engine, "select route, state, error from alert_deliveries order by 1")
    assert states == [("gone", "pending", "127.0.0.1 answered 404: Unknown Webhook"), ("team", "sent", None)]
    assert isinstance(stack.tick(), str), "not again for five minutes"


def test_a_run_under_way_is_waited_for(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.raise_(1)
    job = stack.definitions.get_repository_def().get_job("deliver_alerts")
    run = stack.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert stack.tick() == f"Due to team. The run {run.run_id} is under way."
    stack.instance.report_run_failed(run)
    assert stack.tick() == f"Due to team. The run {run.run_id} failed a moment ago; the next one waits 30 s."
    later = time.time() + 31
    monkeypatch.setattr("pipeline_platform.orchestration.alerts.sensors.time.time", lambda: later)
    assert isinstance(stack.tick(), dg.RunRequest)


def test_the_file_is_read_anew_and_a_mistake_in_it_is_named(stack: Stack) -> None:
    stack.raise_(1)
    stack.file.write_text("routes:\n  - {name: team, url_env: TEAM_WEBHOOK, format: discard}\n")
    with pytest.raises(SettingError, match=r"alerts.yaml, line 2, field routes.1.format"):
        stack.tick()
    stack.file.write_text("routes:\n  - {name: team, url_env: TEAM_WEBHOOK, format: discord, streams: [orders]}\n")
    assert stack.tick() == "Nothing is due to 1 route(s)."
    stack.file.unlink()
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        stack.tick()


def test_maintenance_purges_old_alerts(stack: Stack) -> None:
    stack.raise_(2)
    execute(stack.engine, "update alerts set last_raised_at = now() - interval '31 days' where key = 'k0'")
    job = stack.definitions.get_repository_def().get_job("maintain_warehouse")
    assert job.execute_in_process(instance=stack.instance).success
    assert rows(stack.engine, "select key from alerts") == [("k1",)]


def test_without_a_file_the_sensor_says_so(warehouse_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", warehouse_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.delenv("PIPELINE_ALERTS_FILE", raising=False)
    shipped = definitions()
    assert isinstance(shipped, dg.Definitions)
    sensor = shipped.get_repository_def().get_sensor_def("deliver_alerts_sensor")
    assert sensor.default_status is dg.DefaultSensorStatus.RUNNING
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_sensor_context(instance, resources=shipped.resources) as context,
    ):
        assert "PIPELINE_ALERTS_FILE is not set" in (sensor.evaluate_tick(context).skip_message or "")
