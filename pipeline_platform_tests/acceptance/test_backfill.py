"""A backfill as a person does it: through the GraphQL of Dagster's UI, its worker killed in the middle, and resumed."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from pipeline_platform.core.failures import Failure, FailureKind
from pipeline_platform.core.prices import Interval
from pipeline_platform.core.time_ranges import of_days
from pipeline_platform.local.connections import Connections, find_connections
from pipeline_platform.local.dagster_api import DagsterApi
from pipeline_platform.local.price_server.faults import Fault
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.etl_ledger import EtlLedger
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import wait_for

FIRST, LAST = date(2024, 2, 15), date(2024, 3, 15)  # thirty days, one of them a leap day
SYMBOLS = {"BTCUSDT": "BTC", "ETHUSDT": "ETH", "EURUSDT": "EUR"}
ASSET = "prices/candles"
MISTYPED = "2024-02-15|demo:BTCUSDX"  # as prices.yaml had it once


@pytest.fixture(scope="module")
def server() -> Iterator[PriceServer]:
    """The price server, in this process: its truth is what the rows are compared with."""
    server = PriceServer(limits=True)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def priced(server: PriceServer) -> Iterator[Up]:
    """A platform whose only source is that server. Nothing but the backfill asks for candles meanwhile."""
    env = {
        "PIPELINE_DEMO_PRICES_URL": server.url,
        "PIPELINE_PRICES_CATCH_UP_SECONDS": "3600",
        "PIPELINE_PRICES_CANDLES_CRON": "0 0 29 2 *",
    }
    stack = Up(env=env)
    try:
        running = stack.start()
        fail(find_connections(Settings.load(state_dir=running.state_dir)), MISTYPED)
        yield running
    finally:
        stack.remove()


def fail(where: Connections, partition: str) -> None:
    """Leaves a failed row of a partition, as a run does whose source does not know the symbol."""
    engine = connect(where.warehouse_loader_url, pool_size=1)
    ledger = EtlLedger(engine)
    row = ledger.begin(ASSET, [partition], "of-old", "prices_candles")
    failure = Failure(FailureKind.PERMANENT, "UnknownSymbolError", "Invalid symbol.", attempt=1, run_id="of-old")
    assert ledger.fail(row.id, failure, not_before=datetime.now(UTC))
    engine.dispose()


def rows(where: Connections, query: str, *values: object) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with psycopg.connect(where.warehouse_readonly_url) as connection:
        return connection.execute(query.encode(), values).fetchall()


def test_a_backfill_of_thirty_days_survives_the_kill_of_its_worker(priced: Up, server: PriceServer) -> None:
    where = find_connections(Settings.load(state_dir=priced.state_dir))
    api = DagsterApi(where.dagster_url, where.api_key)
    wanted = [
        f"{FIRST + timedelta(days=number)}|demo:{symbol}"
        for number in range((LAST - FIRST).days + 1)
        for symbol in SYMBOLS
    ]
    within = "open_time >= '2024-02-15Z' and open_time < '2024-03-16Z'"
    caught_up = "select id from assets where asset_key = %s and state = 'loaded'"
    wait_for("the last days have been caught up with", lambda: bool(rows(where, caught_up, ASSET)), 60)
    # Given a backfill, as the UI starts it, whose second run is being answered slowly
    server.faults.set("/api/v3/klines", Fault(hang=60.0, times=1))
    server.faults.set("/api/v3/klines", Fault(times=2))  # the first run's two requests are answered at once
    started = api.launch(ASSET, wanted, title="thirty days")
    query = f"select count(*) from prices_candles where {within}"
    wait_for("the first run has loaded", lambda: rows(where, query)[0][0] >= 720, 60)
    running = "select run_id from assets where asset_key = %s and state = 'planned' and partition_key like '2024%%'"
    wait_for("the second run is in progress", lambda: bool(rows(where, running, ASSET)), 30)
    # If the worker is killed
    os.kill(priced.pid("etl"), signal.SIGKILL)
    # I expect that the run is lost, that the others go on, and that what was loaded is there
    wait_for("the backfill has ended", lambda: api.status(started).ended, 60)
    ended = api.status(started)
    assert (ended.materialized, ended.failed, api.canceled_runs(started)) == (60, 30, 0)
    assert rows(where, query) == [(2 * 30 * 25,)]
    # and that the command finds what is missing and gets it, and nothing else
    asked = server.requests["/api/v3/klines"]
    command = ["backfill", ASSET, "--from", str(FIRST), "--to", str(LAST), "--only-gaps"]
    command += [part for symbol in SYMBOLS for part in ("--symbol", symbol)]
    dry = priced.run(*command, "--dry-run").stdout
    assert "30 partitions" in dry
    assert "750 candles in 2 requests and 1 runs" in dry
    assert server.requests["/api/v3/klines"] == asked
    assert "30 materialized, 0 failed" in priced.run(*command).stdout
    assert server.requests["/api/v3/klines"] == asked + 2
    assert "Nothing to do" in priced.run(*command).stdout
    for symbol, currency in SYMBOLS.items():
        for interval in (Interval.HOUR, Interval.DAY):
            truth = server.truth.candles("demo", symbol, currency, interval, of_days(FIRST, LAST), datetime.now(UTC))
            found = rows(
                where,
                "select open_time, open, high, low, close, volume, closed from prices_candles "
                f'where {within} and symbol = %s and "interval" = %s order by 1',
                symbol,
                interval.value,
            )
            assert found == [(c.open_time, c.open, c.high, c.low, c.close, c.volume, True) for c in truth]


def test_backfills_wait_in_their_own_queue_and_the_mart_follows(priced: Up) -> None:
    where = find_connections(Settings.load(state_dir=priced.state_dir))
    with psycopg.connect(where.dagster_database_url) as connection:
        events = connection.execute(
            "select event from event_logs where event like '%%Sending the run to the queue backfill%%'"
        ).fetchall()
    assert len(events) == 4  # three, and the one that was resumed
    query = "select count(*) from prices_daily where day between %s and %s and not gap and symbol = 'BTC-USD'"
    wait_for("the days follow", lambda: rows(where, query, FIRST, LAST) == [(30,)], 60)
    checked = priced.run("backfill", "prices/daily", "--from", str(FIRST), "--to", str(LAST), "--only-gaps")
    assert "Nothing to do" in checked.stdout


def test_what_prices_yaml_does_not_have_any_more_is_closed(priced: Up) -> None:
    where = find_connections(Settings.load(state_dir=priced.state_dir))
    query = "select id from assets where state = 'obsolete' and partition_key = %s"
    wait_for("the sensor looks", lambda: len(rows(where, query, MISTYPED)) == 1, 60)  # long ago, mostly
    ((row_id,),) = rows(where, query, MISTYPED)
    assert rows(where, "select count(*) from alerts where resolved_at is null and kind = 'asset_failing'") == [(0,)]
    again = priced.run("assets", "replay", str(row_id), check=False)
    assert again.returncode == 1
    assert "demo:BTCUSDX is not among the enabled instruments of prices.yaml any more" in again.stderr


def test_a_mistake_is_one_sentence(priced: Up) -> None:
    nothing = priced.run("backfill", "prices/nothing", "--from", "2024-01-01", check=False)
    assert nothing.returncode == 1
    assert "There is no asset 'prices/nothing'" in nothing.stderr
    unknown = priced.run("backfill", ASSET, "--from", "2024-01-01", "--source", "mtgox", check=False)
    assert unknown.returncode == 1
    assert "'mtgox' is not an enabled source" in unknown.stderr
