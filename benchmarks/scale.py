"""Many short runs on one, two and four worker processes: runs a second, events a second, and nothing doubled.

    python -m benchmarks.scale [--requests 600] [--processes 1 2 4] [--children 1] [--namespaces]

Every run loads one small batch, so that what is measured is the runtime and not the load. The first process is `up`'s
own worker, the others are each a `pipeline-platform worker` against the same servers. With --namespaces each of the
others runs in a network namespace of its own, with addresses of this host and nothing else, as on another machine;
their traffic passes a forwarder in this process, which costs some of what is measured. That needs root.
"""

from __future__ import annotations

import argparse

import psycopg

from benchmarks.events import fill
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.fleet import Fleet
from pipeline_platform_tests.oracle import settled, wait_for
from pipeline_platform_tests.other_host import allowed

EVENTS = 100  # a request, and a batch
MANY = {
    "PIPELINE_BATCH_MAX_EVENTS": str(EVENTS),
    "PIPELINE_BATCHES_IN_FLIGHT": "24",
    "PIPELINE_RUNS_PER_SECOND": "1000",
    "PIPELINE_RUNS_BURST": "1000",
}
WARM_UP = 20


def measure(processes: int, requests: int, children: int, *, namespaces: bool) -> tuple[float, str]:
    """Runs a second over `requests` runs, and whether everything is there once."""
    up = Up("--workers", str(children), env=MANY)
    fleet = Fleet(up, namespaces=namespaces)
    try:
        where = up.start().status()
        for number in range(1, processes):
            fleet.add(f"more-{number}", children=children)
        queue = RedisStreams(connect(where["redis_url"]))
        fill(queue, WARM_UP, EVENTS)  # every child has had its first run
        wait_for("the warm-up is loaded", lambda: settled(where["warehouse_url"], WARM_UP * EVENTS), 120)
        fill(queue, requests, EVENTS, seed=2)
        wanted = (requests + WARM_UP) * EVENTS
        wait_for("everything is loaded", lambda: settled(where["warehouse_url"], wanted), 600)
        with psycopg.connect(where["warehouse_url"]) as connection:
            row = connection.execute(
                "select sum(events_read), sum(events_loaded), sum(events_negative), "
                "(select count(*) from telemetry_events), (select sum(events) from telemetry_minutes), "
                "(select extract(epoch from max(loaded_at) - min(planned_at)) "
                "from (select * from assets where stream is not null order by id offset %s) a) "
                "from assets where stream is not null",
                [WARM_UP],
            ).fetchone()
        assert row is not None
        read, loaded, negative, facts, minutes, seconds = row
        same = read == wanted and loaded == facts == minutes and read == loaded + negative
        figures = f"{wanted} sent, {read} read = {loaded} + {negative}, {facts} facts, {minutes} in minutes"
        return requests / float(seconds), f"yes: {figures}" if same else f"NO: {figures}"
    finally:
        fleet.stop()
        up.remove()


def main() -> None:
    """Measures and prints the table; fails when something was doubled or lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--children", type=int, default=1, help="children of each process")
    parser.add_argument("--namespaces", action="store_true", help="the further processes on 'other hosts'")
    options = parser.parse_args()
    if options.namespaces and not allowed():
        parser.error("--namespaces needs Linux and root (CAP_SYS_ADMIN): no network namespace can be made")
    print(f"{'processes':>10}{'runs/s':>10}{'events/s':>12}   each event once", flush=True)
    good = True
    for processes in options.processes:
        rate, same = measure(processes, options.requests, options.children, namespaces=options.namespaces)
        good = good and same.startswith("yes")
        print(f"{processes:>10}{rate:>10.1f}{rate * EVENTS:>12,.0f}   {same}", flush=True)
    if not good:
        raise SystemExit("Something was lost or doubled.")


if __name__ == "__main__":
    main()
