"""An ingest run in process, from the shipped definitions: what it loads, says, and leaves when it fails."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import dagster as dg
import orjson
import pytest
import sqlalchemy as sa

from pipeline_platform.orchestration import resources
from pipeline_platform.orchestration.definitions import definitions
from pipeline_platform.orchestration.ingest.assets import events_key, minutes_key, queue_key
from pipeline_platform.orchestration.ingest.checks import JOB
from pipeline_platform.orchestration.ingest.planner import RunState
from pipeline_platform.orchestration.ingest.sensors import run_state
from pipeline_platform.queue.protocol import NewEntry
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.warehouse.audit import AuditEntry
from pipeline_platform.warehouse.audit import insert as insert_audit
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.ledger_rows import LedgerRow
from pipeline_platform_tests.integration.batches import execute, rows

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]
STREAM = "telemetry"
GRAPH = "ingest_telemetry_batch"


@dataclass
class Stack:
    """A queue, a warehouse and Dagster, all of this test."""

    definitions: dg.Definitions
    repository: dg.RepositoryDefinition
    instance: dg.DagsterInstance
    queue: RedisStreams
    engine: sa.Engine
    ledger: Ledger

    def post(self, *events: dict[str, Any] | bytes) -> None:
        """Accepts one request."""
        lines = [line if isinstance(line, bytes) else orjson.dumps(line) for line in events]
        self.queue.append([NewEntry(STREAM, len(lines), b"".join(line + b"\n" for line in lines), "k1")])

    def tick(self) -> list[dg.RunRequest]:
        """The runs that the sensor asks for."""
        sensor = self.repository.get_sensor_def("ingest_telemetry_sensor")
        with dg.build_sensor_context(self.instance, resources=self.definitions.resources) as context:
            return list(sensor.evaluate_tick(context).run_requests or [])

    def run(self, request: dg.RunRequest | None = None, job: str = "ingest_telemetry") -> dg.ExecuteInProcessResult:
        """Executes the requested run, as the worker would."""
        return self.repository.get_job(job).execute_in_process(
            run_config=request.run_config if request else None,
            tags=dict(request.tags) if request else None,
            instance=self.instance,
            raise_on_error=False,
        )

    def row(self, batch_id: int = 1) -> LedgerRow:
        """A row of the ledger."""
        row = self.ledger.get(batch_id)
        assert row is not None
        return row

    def check(self) -> dict[str, bool]:
        """The outcome of telemetry's checks by name."""
        result = self.run(job=JOB)
        assert result.success
        evaluations = result.get_asset_check_evaluations()
        keys = {events_key(STREAM), minutes_key(STREAM)}
        return {each.check_name: each.passed for each in evaluations if each.asset_key in keys}


@pytest.fixture
def stack(own_warehouse_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    """The shipped definitions over the servers of the tests. A tick waits a moment for data, not for seconds."""
    monkeypatch.setenv("PIPELINE_SENSOR_HOLD_SECONDS", "0.02")
    monkeypatch.setenv("DATABASE_URL", own_warehouse_url)
    monkeypatch.setenv("REDIS_URL", redis_url)
    shipped = _shipped()
    engine = connect(own_warehouse_url)
    queue = resources._queue(redis_url, os.getpid())
    with dg.DagsterInstance.ephemeral() as instance:
        yield Stack(shipped, shipped.get_repository_def(), instance, queue, engine, Ledger(engine))
    engine.dispose()
    resources._engine(own_warehouse_url, os.getpid()).dispose()


def reading(value: float = 1.0, **fields: Any) -> dict[str, Any]:
    """An event of the minute before the last."""
    ago = datetime.now(UTC) - timedelta(minutes=2)
    return {"source": "s1", "metric": "m1", "value": value, "ts": ago.isoformat()} | fields


def test_a_batch_goes_from_the_queue_to_the_warehouse_in_one_run(stack: Stack) -> None:
    stack.post(reading(1.0), reading(-1.0), b"not json")
    stack.post(reading(3.0))
    (request,) = stack.tick()
    assert request.run_key == "telemetry-1-1"
    assert request.tags["pipeline/batch_id"] == "1"
    assert stack.row().attempt == 1
    result = stack.run(request)
    assert result.success
    row = stack.row()
    assert (row.state, row.run_id, row.events_read, row.events_loaded) == ("loaded", result.run_id, 4, 2)
    assert (row.events_negative, row.events_rejected) == (1, 1)
    assert rows(stack.engine, "select sum(value) from telemetry") == [(4.0,)]
    assert rows(stack.engine, "select run_id from dead_letters") == [(result.run_id,)]
    assert stack.tick() == []
    assert stack.queue.position(STREAM).entries == 0


def test_the_run_materializes_both_assets_with_what_it_did(stack: Stack) -> None:
    stack.post(reading(1.0), reading(-1.0), b"not json", reading(2.0))
    result = stack.run(stack.tick()[0])
    events = {event.asset_key: event.materialization.metadata for event in result.get_asset_materialization_events()}
    assert set(events) == {events_key(STREAM), minutes_key(STREAM)}
    told = {name: value.value for name, value in events[events_key(STREAM)].items()}
    assert told["dagster/row_count"] == 2
    assert (told["read"], told["negative"], told["rejected"], told["batch"]) == (4, 1, 1, 1)
    assert told["first receipt"] == told["last receipt"] == f"telemetry.{stack.row().first_id}"
    assert told["fresh"] is True
    assert told["ledger row"] == "pipeline-platform assets show 1"
    assert told["ledger row over HTTP"] == "http://127.0.0.1:8000/v1/assets/1"
    stages = dict(re.findall(r"^\| (.+) \| (-?\d+) \|$", str(told["where the time goes"]), re.MULTILINE))
    names = ["received", "planned", "requested", "started", "loaded", "visible"]
    assert list(stages) == [*map(" -> ".join, pairwise(names)), "all"]
    whole = int(stages.pop("all"))
    assert sum(map(int, stages.values())) == pytest.approx(whole, abs=3)
    assert events[minutes_key(STREAM)]["dagster/row_count"].value == 1


def test_the_assets_say_where_they_are_and_what_they_come_from(stack: Stack) -> None:
    graph = stack.repository.asset_graph
    for stream in ("telemetry", "orders"):
        events, minutes = graph.get(events_key(stream)), graph.get(minutes_key(stream))
        assert events.parent_keys == {queue_key(stream)}
        assert minutes.parent_keys == {events_key(stream)}
        assert graph.get(queue_key(stream)).is_external
        assert events.metadata["dagster/table_name"].endswith(f"public.{stream}_events")
        for asset in (events, minutes):
            assert asset.metadata["dagster/column_schema"].columns
            assert (asset.group_name, asset.owners, asset.kinds) == (
                stream,
                ["team:data-platform"],
                {"postgres", "pandas"},
            )
    schema = graph.get(events_key("telemetry")).metadata["dagster/column_schema"]
    there = {column["name"] for column in sa.inspect(stack.engine).get_columns("telemetry_events")}
    assert {column.name for column in schema.columns} == there
    described = graph.get(minutes_key("telemetry"))
    view = {column["name"] for column in sa.inspect(stack.engine).get_columns("telemetry_1m")}
    assert described.metadata["dagster/table_name"].endswith("public.telemetry_1m")
    assert {column.name for column in described.metadata["dagster/column_schema"].columns} == view


def test_the_same_batch_run_again_is_a_success_that_does_nothing(stack: Stack) -> None:
    stack.post(reading())
    (request,) = stack.tick()
    first = stack.run(request)
    again = stack.run(request)
    assert again.success
    assert stack.row().run_id == first.run_id
    assert rows(stack.engine, "select count(*) from telemetry") == [(1,)]


def test_materialize_without_a_batch_takes_the_oldest_that_waits(stack: Stack) -> None:
    stack.post(reading())
    stack.tick()
    assert stack.run().success
    assert stack.row().state == "loaded"


def test_materialize_with_nothing_waiting_succeeds(stack: Stack) -> None:
    assert stack.run().success
    assert rows(stack.engine, "select count(*) from assets") == [(0,)]


def test_a_load_that_postgresql_refuses_leaves_a_failed_row_and_a_later_attempt_loads(stack: Stack) -> None:
    stack.post(reading())
    execute(stack.engine, "alter table telemetry_minutes add constraint planted check (events < 0)")
    result = stack.run(stack.tick()[0])
    assert not result.success
    row = stack.row()
    assert (row.state, row.attempt, row.run_id) == ("failed", 1, result.run_id)
    ((error_class, message),) = rows(stack.engine, "select error_class, error_message from assets")
    assert error_class == "PermanentError"
    assert message.startswith("load: The warehouse refused (23514)")
    assert row.not_before is not None
    assert row.not_before > datetime.now(UTC)
    assert stack.tick() == []
    execute(stack.engine, "alter table telemetry_minutes drop constraint planted")
    execute(stack.engine, "update assets set not_before = now()")
    (request,) = stack.tick()
    assert request.run_key == "telemetry-1-2"
    assert stack.run(request).success
    assert stack.row().state == "loaded"


def test_entries_that_are_gone_fail_the_run_and_say_so(stack: Stack) -> None:
    stack.post(reading())
    stack.post(reading())
    (request,) = stack.tick()
    stack.queue.trim(STREAM, stack.row().last_id)
    assert not stack.run(request).success
    assert rows(stack.engine, "select state, error_class from assets") == [("failed", "MissingEntriesError")]
    assert "has 2 entries, but the queue holds 1 of them" in str(stack.row().error_message)


def test_a_run_of_an_attempt_that_was_given_up_leaves_the_batch_to_its_successor(stack: Stack) -> None:
    stack.post(reading())
    (request,) = stack.tick()
    stack.ledger.request(1, 2)
    assert stack.run(request).success
    assert (stack.row().state, stack.row().attempt, stack.row().run_id) == ("planned", 2, None)


def test_a_batch_of_another_stream_is_refused(stack: Stack) -> None:
    stack.post(reading())
    stack.tick()
    config = {"ops": {"ingest_orders_batch": {"config": {"batch_id": 1}}}}
    job = stack.repository.get_job("ingest_orders")
    result = job.execute_in_process(run_config=config, instance=stack.instance, raise_on_error=False)
    assert not result.success
    assert stack.row().state == "planned"


def test_a_run_that_was_killed_is_seen_by_the_sensor_and_requested_again(stack: Stack) -> None:
    stack.post(reading())
    (request,) = stack.tick()
    job = stack.repository.get_job("ingest_telemetry")
    run = stack.instance.create_run_for_job(job, tags=dict(request.tags))
    assert stack.tick() == []
    stack.instance.report_run_failed(run)
    assert stack.tick() == []
    assert rows(stack.engine, "select state, error_class from assets") == [("failed", "RunLost")]
    execute(stack.engine, "update assets set not_before = now()")
    assert [again.run_key for again in stack.tick()] == ["telemetry-1-2"]


def test_a_sensor_without_its_queue_skips_and_says_why(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    away = _shipped()
    with dg.build_sensor_context(stack.instance, resources=away.resources) as context:
        tick = away.get_repository_def().get_sensor_def("ingest_telemetry_sensor").evaluate_tick(context)
    assert "stays in the queue" in str(tick.skip_message)


def test_the_checks_pass_on_good_data(stack: Stack) -> None:
    _load_some(stack)
    assert stack.check() == {"aggregates_equal_recomputation": True, "facts_equal_ledger": True, "fresh": True}


@pytest.mark.parametrize(
    ("tamper", "failing"),
    [
        ("update telemetry_minutes set value_sum = value_sum + 1", {"aggregates_equal_recomputation"}),
        ("delete from telemetry_minutes", {"aggregates_equal_recomputation"}),
        ("delete from telemetry_events where value = 2", {"aggregates_equal_recomputation", "facts_equal_ledger"}),
        ("delete from dead_letters", {"facts_equal_ledger"}),
    ],
)
def test_the_checks_fail_on_tampered_data(stack: Stack, tamper: str, failing: set[str]) -> None:
    _load_some(stack)
    execute(stack.engine, tamper)
    assert {name for name, passed in stack.check().items() if not passed} == failing


@pytest.mark.parametrize("stopped", ["before planning", "after a load", "after planning"])
def test_events_that_wait_for_a_sensor_or_a_worker_that_stopped_are_not_fresh(stack: Stack, stopped: str) -> None:
    old = f"{(int(datetime.now(UTC).timestamp()) - 600) * 1000}"
    client = stack.queue._redis
    if stopped == "after a load":
        for key, fields in (
            ("entries", {"n": 1, "k": "k1", "d": orjson.dumps(reading()) + b"\n"}),
            ("sizes", {"n": 1, "b": 9, "e": 1}),
        ):
            client.xadd(f"pp:{{telemetry}}:{key}", fields, id=f"{int(old) - 1000}-0")  # type: ignore[arg-type]
        assert stack.run(stack.tick()[0]).success
        assert stack.check()["fresh"]
    client.xadd("pp:{telemetry}:entries", {"n": 1, "k": "k1", "d": orjson.dumps(reading()) + b"\n"}, id=f"{old}-0")
    client.xadd("pp:{telemetry}:sizes", {"n": 1, "b": 9, "e": 1}, id=f"{old}-0")
    if stopped == "after planning":
        assert len(stack.tick()) == 1
    assert not stack.check()["fresh"]


def test_the_maintenance_job_indexes_drops_and_folds(stack: Stack) -> None:
    stack.post(reading(ts=(datetime.now(UTC) - timedelta(days=3)).isoformat()))
    stack.run(stack.tick()[0])
    execute(stack.engine, "update assets set planned_at = planned_at - interval '1 hour'")
    moments = [datetime.now(UTC) - timedelta(days=days) for days in (366, 364)]
    insert_audit(stack.engine, [AuditEntry(moment, "login") for moment in moments])
    result = stack.run(job="maintain_warehouse")
    assert result.success
    assert rows(stack.engine, "select count(*) from pg_indexes where indexdef like '%brin%'") == [(1,)]
    assert rows(stack.engine, "select at from audit") == [(moments[1],)]
    folded = "select stream, events_loaded from ledger_totals order by 1"
    assert rows(stack.engine, folded) == [("orders", 0), ("telemetry", 1)]


def _shipped() -> dg.Definitions:
    shipped = definitions()
    return shipped if isinstance(shipped, dg.Definitions) else shipped.load_definitions()


def _load_some(stack: Stack) -> None:
    stack.post(reading(1.0), reading(2.0), reading(-3.0), b"not json")
    assert stack.run(stack.tick()[0]).success


def test_a_run_that_has_not_started_is_as_good_as_none(stack: Stack) -> None:
    stack.post(reading())
    (request,) = stack.tick()
    job = stack.repository.get_job("ingest_telemetry")
    assert run_state(stack.instance, stack.row()) is RunState.ABSENT
    run = stack.instance.create_run_for_job(job, tags=dict(request.tags), run_config=request.run_config)
    assert run_state(stack.instance, stack.row()) is RunState.ABSENT  # NOT_STARTED
    stack.instance.report_dagster_event(
        dg.DagsterEvent(dg.DagsterEventType.PIPELINE_STARTING.value, run.job_name), run.run_id
    )
    assert stack.instance.get_run_by_id(run.run_id).status is dg.DagsterRunStatus.STARTING  # type: ignore[union-attr]
    assert run_state(stack.instance, stack.row()) is RunState.ABSENT
    # So the planner asks again when its own patience is over, and not before.
    assert stack.tick() == []
    with stack.engine.begin() as connection:
        connection.execute(sa.text("update assets set requested_at = now() - interval '61 seconds'"))
    (again,) = stack.tick()
    assert again.run_key == "telemetry-1-2"
    # Should the first start after all, it does nothing; the second loads.
    assert stack.run(request).success
    assert stack.row().state == "planned"
    assert stack.run(again).success
    assert (stack.row().state, stack.row().attempt) == ("loaded", 2)
    assert rows(stack.engine, "select count(*) from telemetry") == [(1,)]


def test_a_run_that_was_canceled_is_known_from_one_that_failed(stack: Stack) -> None:
    stack.post(reading())
    (request,) = stack.tick()
    run = stack.instance.create_run_for_job(
        stack.repository.get_job("ingest_telemetry"), tags=dict(request.tags), run_config=request.run_config
    )
    stack.instance.report_run_canceled(run)
    assert run_state(stack.instance, stack.row()) is RunState.CANCELED
    assert stack.tick() == []
    assert [(each.kind.value, each.error_class) for each in stack.row().failures] == [("canceled", "RunCanceled")]
