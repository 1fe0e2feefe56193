"""Many short runs on one, two and four worker children: runs a second, events a second, and nothing doubled.

    python -m benchmarks.scale [--requests 600] [--children 1 2 4]

Every run loads one small batch, so that what is measured is the runtime and not the load. The children of the second
half of each count belong to a second worker process, started as on another host: `pipeline-platform worker`.
"""

from __future__ import annotations

import argparse
import subprocess
import time

import psycopg

from benchmarks.events import fill
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform_tests.acceptance.stacks import COMMAND, Up
from pipeline_platform_tests.oracle import settled, wait_for

EVENTS = 100  # a request, and a batch
MANY = {
    "PIPELINE_BATCH_MAX_EVENTS": str(EVENTS),
    "PIPELINE_BATCHES_IN_FLIGHT": "24",
    "PIPELINE_RUNS_PER_SECOND": "1000",
    "PIPELINE_RUNS_BURST": "1000",
}


def measure(children: int, requests: int) -> tuple[float, str]:
    """Runs a second over `requests` runs, and whether everything is there once."""
    first = max(1, children // 2)
    up = Up("--workers", str(first), env=MANY)
    second: subprocess.Popen[bytes] | None = None
    try:
        where = up.start().status()
        if children > first:
            command = [*COMMAND, "worker", "--workers", str(children - first), "--name", "second"]
            environment = up.env | {"PIPELINE_STATE_DIR": str(up.state_dir)}
            second = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(8)
        queue = RedisStreams(connect(where["redis_url"]))
        fill(queue, 20, EVENTS)  # every child has had its first run
        wait_for("the warm-up is loaded", lambda: settled(where["warehouse_url"], 20 * EVENTS), 120)
        fill(queue, requests, EVENTS, seed=2)
        wanted = (requests + 20) * EVENTS
        wait_for("everything is loaded", lambda: settled(where["warehouse_url"], wanted), 600)
        with psycopg.connect(where["warehouse_url"]) as connection:
            row = connection.execute(
                "select extract(epoch from max(loaded_at) - min(planned_at)), sum(events_loaded), "
                "(select count(*) from telemetry_events), (select sum(events) from telemetry_minutes) "
                "from (select * from assets order by id offset 20) a"
            ).fetchone()
            whole = connection.execute("select sum(events_loaded) from assets").fetchone()
        assert row is not None
        assert whole is not None
        same = whole[0] == row[2] == row[3]
        return requests / float(row[0]), "yes" if same else f"NO: {whole[0]}, {row[2]}, {row[3]}"
    finally:
        if second is not None:
            second.terminate()
            second.wait(30)
        up.remove()


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--children", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    print(f"{'children':>10}{'runs/s':>10}{'events/s':>12}   facts = minutes = ledger")
    for children in options.children:
        rate, same = measure(children, options.requests)
        print(f"{children:>10}{rate:>10.1f}{rate * EVENTS:>12,.0f}   {same}", flush=True)


if __name__ == "__main__":
    main()
