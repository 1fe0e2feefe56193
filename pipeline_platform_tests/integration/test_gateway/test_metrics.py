"""/metrics over real servers: what each figure says, and that a server that is away costs figures and not the page."""

from __future__ import annotations

import math
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime

import psycopg
import pytest
import redis
import sqlalchemy as sa
from dagster._core.scheduler.instigation import InstigatorTick, InstigatorType, TickData, TickStatus
from dagster._daemon.types import DaemonHeartbeat
from dagster_postgres import DagsterPostgresStorage
from dagster_shared.error import SerializableErrorInfo
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

from pipeline_platform.gateway.dagster_gauges import NEWEST_TICKS, DagsterGauges
from pipeline_platform.gateway.metrics import Metrics
from pipeline_platform.gateway.worker_gauges import WorkerGauges
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.workers import WORKERS_KEY, WorkerBoard
from pipeline_platform.settings import Settings
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline, serving, until

Page = dict[tuple[str, ...], float]
DAGSTERS = ("pipeline_dagster_up", "pipeline_event_log_bytes", "pipeline_tick_average_seconds")
TERMINATE = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s"


def read(client: Client) -> Page:
    """Every sample by its name and the values of its labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(each.name, *each.labels.values()): each.value for family in families for each in family.samples}


class History:
    """Dagster's own storage in a database of the test's own, written as its daemon does."""

    def __init__(self, server: PostgresServer, name: str) -> None:
        self.url, self._name, self._server = server.url(name), sql.Identifier(name), server
        self.name = name
        stock = sa.make_url(self.url).set(drivername="postgresql+psycopg2")
        self.storage = DagsterPostgresStorage(stock.render_as_string(hide_password=False), True)

    def tick(
        self,
        sensor: str,
        took: float,
        status: TickStatus,
        kind: InstigatorType = InstigatorType.SENSOR,
        ago: float = 0.0,
    ) -> None:
        """A tick that ended `ago` seconds ago, or has not when its status says so."""
        ticks = self.storage.schedule_storage
        began = time.time() - ago - took
        tick = ticks.create_tick(TickData(sensor, sensor, kind, TickStatus.STARTED, began, selector_id=sensor))
        if status != TickStatus.STARTED:
            error = SerializableErrorInfo("boom", [], "X") if status == TickStatus.FAILURE else None
            tick = tick.with_status(status, error=error).with_cursor('\x00, "end_timestamp": 1, "timestamp": 1')
            ended = tick.tick_data._replace(end_timestamp=began + took)
            ticks.update_tick(InstigatorTick(tick.tick_id, ended))

    def beat(self, daemon: str, at: float) -> None:
        """A heartbeat."""
        self.storage.run_storage.add_daemon_heartbeat(DaemonHeartbeat(at, daemon, "id", []))

    def away(self, yes: bool) -> None:
        """Whether nobody can be connected."""
        with psycopg.connect(self._server.url(), autocommit=True) as connection:
            allowed = sql.SQL("false" if yes else "true")
            connection.execute(sql.SQL("alter database {} allow_connections {}").format(self._name, allowed))
            if yes:
                connection.execute(TERMINATE, [self.name])


@pytest.fixture
def history(postgres_server: PostgresServer) -> Iterator[History]:
    name = f"dagster_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server.url(), autocommit=True) as connection:
        connection.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield History(postgres_server, name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def watched(settings: Settings, history: History, connected: Callable[..., Client]) -> Iterator[Client]:
    """A gateway that knows Dagster's database."""
    with serving(settings.model_copy(update={"dagster_database_url": history.url})) as base:
        yield connected(base)


def test_ticks_heartbeats_and_the_event_log_are_on_the_page(history: History, watched: Client) -> None:
    history.tick("a", 60, TickStatus.SKIPPED, ago=61)
    history.tick("a", 2, TickStatus.SUCCESS)
    history.tick("a", 4, TickStatus.FAILURE)
    history.tick("a", 3, TickStatus.SKIPPED)
    history.tick("b", 0, TickStatus.SKIPPED)
    history.tick("c", 9, TickStatus.STARTED)
    history.tick("s", 9, TickStatus.SUCCESS, InstigatorType.SCHEDULE)
    history.beat("SENSOR", 1_763_712_000.25)
    history.beat("MONITORING", 1_763_712_001.5)
    page = read(watched)
    assert page["pipeline_dagster_up",] == 1
    assert page["pipeline_tick_average_seconds", "a"] == pytest.approx(3, abs=0.01)
    assert page["pipeline_tick_max_seconds", "a"] == pytest.approx(4, abs=0.01)
    assert page["pipeline_tick_average_seconds", "b"] == pytest.approx(0, abs=0.01)
    rates = {labels: value for (name, labels), value in _tupled(page) if name == "pipeline_ticks_per_second"}
    assert rates == {("a", s): 1 / 60 for s in ("success", "failure", "skipped")} | {("b", "skipped"): 1 / 60}
    beats = {labels: value for (name, labels), value in _tupled(page) if "heartbeat" in name}
    assert beats == {("SENSOR",): 1_763_712_000.25, ("MONITORING",): 1_763_712_001.5}
    with psycopg.connect(history.url) as connection:
        size = connection.execute("select pg_total_relation_size('event_logs')").fetchone()
    assert size == (page["pipeline_event_log_bytes",],)
    assert size[0] > 0


def _tupled(page: Page) -> Iterator[tuple[tuple[str, tuple[str, ...]], float]]:
    for (name, *labels), value in page.items():
        yield (name, tuple(labels)), value


def test_a_long_history_is_not_read_through(history: History) -> None:
    history.tick("old", 1, TickStatus.SKIPPED)
    with psycopg.connect(history.url) as connection:
        copied = "job_origin_id, selector_id, status, type, timestamp, tick_body, create_timestamp, update_timestamp"
        connection.execute(
            f"insert into job_ticks ({copied}) select job_origin_id, 'new', status, type, timestamp, "
            f"replace(tick_body, '\"old\"', '\"new\"'), create_timestamp, update_timestamp "
            f"from job_ticks, generate_series(1, {NEWEST_TICKS})".encode()
        )
    metrics = Metrics()
    gauges = DagsterGauges(history.url, metrics)
    gauges.refresh()
    gauges.close()
    assert metrics.registry.get_sample_value(
        "pipeline_ticks_per_second", {"sensor": "new", "status": "skipped"}
    ) == pytest.approx(NEWEST_TICKS / 60)
    assert not metrics.registry.get_sample_value("pipeline_tick_max_seconds", {"sensor": "old"})


def test_dagsters_database_away_costs_its_figures_and_not_the_page(history: History, watched: Client) -> None:
    history.tick("a", 1, TickStatus.SUCCESS)
    history.beat("SENSOR", 1.0)
    assert read(watched)["pipeline_tick_average_seconds", "a"] > 0
    history.away(True)
    try:
        until(lambda: read(watched)["pipeline_dagster_up",] == 0, 10, pause=0.2)
        page = read(watched)
        assert math.isnan(page["pipeline_event_log_bytes",])
        assert not [name for name, *_ in page if name.startswith(("pipeline_tick", "pipeline_daemon"))]
        assert page["pipeline_warehouse_up",] == 1
    finally:
        history.away(False)
    until(lambda: read(watched).get(("pipeline_tick_average_seconds", "a"), 0) > 0, 10, pause=0.2)


def test_a_server_that_does_not_answer_delays_a_scrape_by_seconds_at_most(
    settings: Settings, connected: Callable[..., Client]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://u:p@127.0.0.1:{silent.getsockname()[1]}/dagster"
        with serving(settings.model_copy(update={"dagster_database_url": url})) as base:
            client = connected(base)
            began = time.monotonic()
            assert read(client)["pipeline_warehouse_up",] == 1
            assert time.monotonic() - began < 5
            began = time.monotonic()
            assert read(client)["pipeline_dagster_up",] == 0
            assert time.monotonic() - began < 2  # the first question is still being asked
            silent.close()


def test_without_dagsters_database_nothing_is_said_of_it(client: Client) -> None:
    page = read(client)
    assert page["pipeline_warehouse_up",] == 1
    assert not [name for name, *_ in page if name in DAGSTERS]


def test_workers_that_sign_in_are_counted_until_they_are_silent(client: Client, redis_client: redis.Redis) -> None:
    assert read(client)["pipeline_workers_alive",] == 0
    board = WorkerBoard(redis_client, silence=2)
    board.beat("one", 2, 1)
    board.beat("two", 3, 0)

    def shown() -> list[float]:
        page = read(client)
        return [page[f"pipeline_{name}",] for name in ("workers_alive", "workers_busy", "worker_slots")] + [
            page["pipeline_worker_slots_busy",]
        ]

    until(lambda: shown() == [2, 1, 5, 1], 3)
    began = time.monotonic()
    while time.monotonic() - began < 4:
        board.beat("two", 3, 3)
        time.sleep(0.5)
    assert redis_client.hkeys(WORKERS_KEY) == [b"two"]
    until(lambda: shown() == [1, 1, 3, 3], 3)
    until(lambda: shown() == [0, 0, 0, 0], 6)


def test_workers_are_unknown_while_the_queue_is_away() -> None:
    metrics = Metrics()
    with connect_queue("redis://127.0.0.1:1/0", timeout=1) as nowhere:
        WorkerGauges(WorkerBoard(nowhere), metrics).refresh()
    for name in ("workers_alive", "workers_busy", "worker_slots", "worker_slots_busy"):
        assert math.isnan(metrics.registry.get_sample_value(f"pipeline_{name}") or 0.0)


def test_the_stages_of_a_run_add_up_and_go_with_it(client: Client, pipeline: Pipeline, engine: sa.Engine) -> None:
    receipt = client.post(GOOD).json()["receipt"]
    time.sleep(0.2)
    pipeline.run()
    document = client.get(f"/v1/receipts/{receipt}").json()
    times = {name: datetime.fromisoformat(text) for name, text in document["times"].items()}
    assert list(times) == ["received_at", "planned_at", "requested_at", "started_at", "loaded_at", "visible_at"]
    page = read(client)
    names = ["receive_to_plan", "plan_to_request", "request_to_start", "start_to_load", "load_to_visible"]
    seconds = {name: page["pipeline_run_stage_seconds", name, "telemetry"] for name in names}
    assert seconds["receive_to_plan"] > 0.2
    assert 0 <= seconds["load_to_visible"] < 1
    whole = (times["visible_at"] - times["received_at"]).total_seconds()
    assert sum(seconds.values()) == pytest.approx(whole, abs=0.001)
    with engine.begin() as connection:
        connection.execute(sa.text("update assets set planned_at = planned_at - interval '2 hours'"))
    until(lambda: not [key for key in read(client) if key[0] == "pipeline_run_stage_seconds"], 8, pause=0.2)
