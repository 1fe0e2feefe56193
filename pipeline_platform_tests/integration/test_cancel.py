"""A cancel ends a run: whatever it was doing is stopped in the server, its rows say canceled, and nothing goes on.

The signal is real. It comes while the run waits in PostgreSQL for a table that the test has locked, so that each test
is where the driver waits, and no test waits for anything else.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa
from dagster._utils.interrupts import capture_interrupts

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.rollups import Grain
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.orchestration.partition_ranges import range_tags
from pipeline_platform.warehouse.dead_letters import LetterFilter
from pipeline_platform.warehouse.replays import begin
from pipeline_platform_tests.integration.batches import execute, rows
from pipeline_platform_tests.integration.price_stack import PriceStack, price_stack
from pipeline_platform_tests.integration.runtime_worker_kit import wait_until
from pipeline_platform_tests.integration.test_ingest_run import Stack, reading, stack  # noqa: F401

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]
WAITING = """
select pid from pg_stat_activity
where datname = current_database() and application_name = 'pipeline-platform run' and wait_event_type = 'Lock'
"""


def canceled(
    engine: sa.Engine, instance: dg.DagsterInstance, table: str, run: Callable[[], object], *, asked: bool = True
) -> dg.DagsterRun:
    """Runs while `table` is locked, cancels it as the launcher does once it waits, and gives the run.

    Not `asked`: somebody else ends its process.
    """
    waited: list[int] = []
    over = threading.Event()

    def cancel() -> None:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while not waited and not over.is_set():
                waited.extend(connection.execute(sa.text(WAITING)).scalars())
        terminate(instance) if asked else os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=cancel)
    with engine.begin() as connection:
        connection.execute(sa.text(f"lock table {table} in access exclusive mode"))
        thread.start()
        with capture_interrupts():  # as a worker does
            run()
        over.set()
        thread.join()
        gone = sa.text("select count(*) = 0 from pg_stat_activity where pid = any(:pids)")
        wait_until("the server has stopped", lambda: bool(connection.scalar(gone, {"pids": waited})))
    (ended,) = instance.get_runs(limit=1)
    assert ended.status is (dg.DagsterRunStatus.CANCELED if asked else dg.DagsterRunStatus.FAILURE)
    return ended


def terminate(instance: dg.DagsterInstance) -> None:
    """As the launcher does it."""
    (started,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
    instance.report_run_canceling(started)
    os.kill(os.getpid(), signal.SIGTERM)


def says_canceled(engine: sa.Engine, run: dg.DagsterRun, table: str) -> None:
    """Every row of the run says so, nobody is alarmed, and nothing is in the table."""
    query = """
        select distinct state, error_kind, error_class, right(error_message, 21) from assets
        where run_id = :run and state <> 'loaded'
    """
    assert rows(engine, query, run=run.run_id) == [("failed", "canceled", "RunCanceled", "The run was canceled.")]
    assert rows(engine, "select count(*) from alerts") == [(0,)]
    assert rows(engine, f"select count(*) from {table}") == [(0,)]


def test_an_ingest_run_wherever_it_is_and_its_batch_is_loaded_once_in_the_end(stack: Stack) -> None:  # noqa: F811
    stack.post(reading(1.0), b"not json")
    execute(
        stack.engine, "select pipeline_ensure_partition('telemetry', current_date + d) from generate_series(-1, 0) d"
    )
    # SQLAlchemy's own statement, a binary COPY, the driver's cursor, a COPY of rows, and after all of them
    for table in ("telemetry_series", "telemetry_events", "telemetry_minutes", "dead_letters", "batch_receipts"):
        (request,) = stack.tick()
        run = canceled(stack.engine, stack.instance, table, partial(stack.run, request))
        says_canceled(stack.engine, run, table)
        execute(stack.engine, "update assets set not_before = now()")
    (request,) = stack.tick()
    assert request.tags["pipeline/mode"] == "plain"
    assert stack.run(request).success
    assert rows(stack.engine, "select attempt, events_loaded, events_rejected from assets") == [(6, 1, 1)]
    assert rows(stack.engine, "select count(*) from telemetry") == [(1,)]


def test_an_end_that_nobody_asked_dagster_for_is_lost(stack: Stack) -> None:  # noqa: F811
    stack.post(reading(1.0))
    (request,) = stack.tick()
    run = canceled(stack.engine, stack.instance, "telemetry_minutes", partial(stack.run, request), asked=False)
    query = "select state, error_kind, error_class, run_id from assets"
    assert rows(stack.engine, query) == [("failed", "lost", "RunInterrupted", run.run_id)]


def test_a_replay(stack: Stack) -> None:  # noqa: F811
    stack.post(reading(1.0, colour="red"))
    assert stack.run(stack.tick()[0]).success
    begin(
        stack.engine, LetterFilter(), Edit.parse({"merge": {"colour": None}}), requested_by="t", streams=("telemetry",)
    )
    sensor = stack.repository.get_sensor_def("replay_sensor")
    for table in ("telemetry_series", "telemetry_minutes"):
        with dg.build_sensor_context(stack.instance, resources=stack.definitions.resources) as context:
            (request,) = sensor.evaluate_tick(context).run_requests or []
        run = canceled(stack.engine, stack.instance, table, partial(stack.run, request, job="replay_telemetry"))
        says_canceled(stack.engine, run, table)
        execute(stack.engine, "update assets set not_before = now()")
    assert rows(stack.engine, "select state from dead_letters") == [("replaying",)]


@pytest.mark.parametrize("tags", [{}, {"dagster/backfill": "b"}], ids=["sensor", "backfill"])
def test_rollups_over_a_range(stack: Stack, tags: dict[str, str]) -> None:  # noqa: F811
    days = [Grain.DAY.floor(datetime.now(UTC)) - timedelta(days=back) for back in (366, 1)]
    for grain, form, table in ((Grain.HOUR, "%Y-%m-%d-%H:%M", "telemetry_hours"), (Grain.DAY, "%Y-%m-%d", "rollups")):
        first, last = (f"{day:{form}}" for day in (days[1] if grain is Grain.HOUR else days[0], days[1]))
        job = stack.repository.get_job(f"rollup_telemetry_{grain.value}")
        named: dict[str, Any] = {
            "instance": stack.instance,
            "tags": range_tags(first, last) | tags,
            "raise_on_error": False,
        }
        run = canceled(stack.engine, stack.instance, table, partial(job.execute_in_process, **named))
        says_canceled(stack.engine, run, table)
    assert rows(stack.engine, "select count(*) from assets") == [(367,)]


@pytest.fixture
def prices(warehouse_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PriceStack]:
    """The shipped definitions with the price server as the source demo."""
    with price_stack(warehouse_url, redis_url, monkeypatch, PriceServer()) as found:
        yield found


def test_prices(prices: PriceStack) -> None:
    cell = "2024-02-29|demo:BTCUSDT"
    for job, first, last, table in (
        ("prices_candles", "2023-03-01|demo:BTCUSDT", cell, "price_candles"),  # as a backfill of a year
        ("prices_quotes", "", "", "price_quotes"),
        ("prices_days", "2024-02-01", "2024-02-29", "price_days"),
        ("prices_days", "2024-02-01", "2024-02-29", "orders_usd"),
    ):
        run = canceled(prices.engine, prices.instance, table, partial(prices.run, job, first, last))
        says_canceled(prices.engine, run, table)
    assert prices.rows("select count(*) from assets where asset_key = 'prices/candles'") == [(366,)]


def test_a_run_that_waits_for_a_source(prices: PriceStack) -> None:
    over = threading.Event()

    def cancel() -> None:
        while not prices.server.requests.total() and not over.is_set():
            pass
        terminate(prices.instance)

    prices.server.faults.set("/", Fault(hang=60))
    thread = threading.Thread(target=cancel)
    thread.start()
    with capture_interrupts():
        prices.run("prices_candles", "2024-02-28|demo:BTCUSDT", "2024-02-29|demo:BTCUSDT")
    over.set()
    thread.join()
    (run,) = prices.instance.get_runs(limit=1)
    assert run.status is dg.DagsterRunStatus.CANCELED
    says_canceled(prices.engine, run, "price_candles")
