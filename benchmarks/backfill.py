"""Three years of hourly and daily candles of twenty instruments, by days: minutes, runs and requests.

    python -m benchmarks.backfill [--days 1096] [--instruments 20] [--sample 60]

A real `up` with its one worker for ETL and backfills, against the local price server with Binance's limits. The
backfill is launched through Dagster's GraphQL, as from its UI. Then a sample of partitions, no two of them neighbours,
is backfilled: each takes a run of its own. What the whole would take that way is extrapolated, and said to be.
"""

from __future__ import annotations

import argparse
import itertools
import threading
import time
from datetime import date, timedelta
from pathlib import Path

import psycopg
import yaml

from pipeline_platform.local.connections import Connections, find_connections
from pipeline_platform.local.dagster_api import BackfillStatus, DagsterApi
from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.local.price_server.truth import BASES
from pipeline_platform.settings import Settings
from pipeline_platform_tests.acceptance.stacks import Up

FIRST = date(2023, 1, 1)
ASSET = "prices/candles"


def plan_file(folder: Path, instruments: int) -> Path:
    """A plan with that many instruments of the local server."""
    names = list(itertools.islice(BASES, instruments))
    demo = {
        "enabled": True,
        "intervals": ["1h", "1d"],
        "instruments": {f"{name}-USD": f"{name}USDT" for name in names},
    }
    path = folder / "prices.yaml"
    path.write_text(yaml.safe_dump({"sources": {"demo": demo}}))
    return path


def backfill(api: DagsterApi, partitions: list[str], title: str) -> tuple[float, BackfillStatus]:
    """Launches a backfill and waits; gives its seconds."""
    began = time.monotonic()
    started = api.launch(ASSET, partitions, title=title)
    while not (status := api.status(started)).ended:
        time.sleep(3.0)  # the webserver counts partitions for every answer
    return time.monotonic() - began, status


def ledger(where: Connections, after: int) -> tuple[int, int, int, int, float]:
    """Of the rows after `after`: the last id, runs, requests, candles, and the longest run's seconds."""
    query = """
        select coalesce(max(id), 0), count(distinct run_id), coalesce(sum(entries), 0), coalesce(sum(events_loaded), 0),
            coalesce(max(extract(epoch from loaded_at - started_at)), 0)
        from assets where kind = 'etl' and asset_key = %s and state = 'loaded' and id > %s
    """
    with psycopg.connect(where.warehouse_url) as connection:
        row = connection.execute(query, [ASSET, after]).fetchone()
    assert row is not None
    return int(row[0]), int(row[1]), int(row[2]), int(row[3]), float(row[4])


def failures(where: Connections) -> str:
    """What the ledger says about runs that failed."""
    query = "select partition_key, state, error_class, error_message from assets where failed_at is not null"
    with psycopg.connect(where.warehouse_url) as connection:
        return "\n".join(map(str, connection.execute(query).fetchall())) or "The ledger knows of no failed run."


def quote_delays(where: Connections) -> list[float]:
    """Seconds from each full two minutes to its quotes."""
    query = "select extract(epoch from loaded_at) from assets where asset_key = 'prices/quotes' and state = 'loaded'"
    with psycopg.connect(where.warehouse_url) as connection:
        return [float(row[0]) % 120 for row in connection.execute(query)]


def measure(days: int, instruments: int, sample: int) -> None:
    """Prints the figures."""
    server = PriceServer(limits=True)
    threading.Thread(target=server.serve, daemon=True).start()
    up = Up(env={"PIPELINE_DEMO_PRICES_URL": server.url, "PIPELINE_PRICES_START": FIRST.isoformat()})
    up.env["PIPELINE_PRICES_FILE"] = str(plan_file(up.folder, instruments))
    try:
        up.start()
        where = find_connections(Settings.load(state_dir=up.state_dir))
        api = DagsterApi(where.dagster_url, where.api_key)
        keys = api.partitions(ASSET).dimensions["instrument"]
        time.sleep(30)  # the sensor has caught up with the last seven days
        before, *_ = ledger(where, 0)
        wanted = [f"{FIRST + timedelta(days=day)}|{key}" for day in range(days) for key in keys]
        seconds, status = backfill(api, wanted, "three years")
        last, runs, requests, candles, longest = ledger(where, before)
        if not status.succeeded:
            raise SystemExit(f"{status}\n{failures(where)}")
        assert status.materialized == len(wanted), status
        print(f"one backfill: {len(wanted):,} partitions, {candles:,} candles: {seconds / 60:.1f} min in {runs} runs")
        print(f"  {requests} requests; the longest run took {longest:.1f} s; {candles / seconds:,.0f} candles/s")
        print(f"  quotes meanwhile, seconds after their time: {[round(each, 1) for each in quote_delays(where)]}")
        alone = [f"{FIRST + timedelta(days=2 * number)}|{keys[0]}" for number in range(sample)]
        slow, status = backfill(api, alone, "a run a partition")
        _, each, asked, *_ = ledger(where, last)
        whole = slow / len(alone) * len(wanted)
        print(f"one run a partition: {len(alone)} partitions: {slow:.1f} s in {each} runs and {asked} requests")
        print(f"  extrapolated, not measured: {whole / 3600:.1f} h, {asked / len(alone) * len(wanted):,.0f} requests")
        print(f"  ratio {whole / seconds:.0f}")
    finally:
        up.remove()
        server.stop()


def main() -> None:
    """Measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--days", type=int, default=1096)
    parser.add_argument("--instruments", type=int, default=20)
    parser.add_argument("--sample", type=int, default=60)
    options = parser.parse_args()
    measure(options.days, options.instruments, options.sample)


if __name__ == "__main__":
    main()
