"""Queue -> warehouse for minutes: millions of events in many runs, beside COPY of the very same rows as CSV.

    python -m benchmarks.sustained [--events 10000000] [--backlog 3000000]

The whole stack runs as `up` starts it, durable and with its defaults. The load appends entries to the queue as fast as
the platform takes them: it holds back while more than `--backlog` events are not loaded, or the queue's memory fills.
Two backlogs' worth goes in before, so that every process has the memory it needs. Events a second are counted from the
first batch planned to the last one committed, by the ledger's clock. Then all rows are exported and copied into a table
of text columns of the same server.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from benchmarks.events import bodies
from benchmarks.load import copy_csv
from benchmarks.processes import Watch
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.protocol import NewEntry, QueueRefusal
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import settled, wait_for

REQUEST = 5_000  # events
TOGETHER = 4  # requests that share an fsync
DISTINCT = 200  # different requests; they are repeated
WARM_UP = 2  # backlogs
COPIES = 3  # their median counts
SHOWN_SECONDS = 0.5  # of processor time
MEMORY_SHARE = 0.5  # of the queue's maxmemory
PLAIN = "select ts, received_at, source, metric, value, batch_id from telemetry where batch_id > {after}"


@dataclass(frozen=True)
class Result:
    """What the ledger says of the runs after batch `after`."""

    runs: int
    events: int
    seconds: float
    drained: float
    same: str


def produce(queue: RedisStreams, warehouse_url: str, requests: list[bytes], events: int, backlog: int) -> float:
    """Appends `events` events without getting further ahead than `backlog`; the time of the last answer."""
    coming = itertools.islice(itertools.cycle(requests), events // REQUEST)
    sent = 0
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        before = _loaded(connection)
        while group := list(itertools.islice(coming, TOGETHER)):
            while sent - (_loaded(connection) - before) > backlog or queue.memory_share() > MEMORY_SHARE:
                time.sleep(0.05)
            for answer in queue.append([NewEntry("telemetry", REQUEST, body, "bench") for body in group]):
                if isinstance(answer, QueueRefusal):
                    raise SystemExit(f"the queue refused: {answer.message}")
            sent += REQUEST * len(group)
    return time.time()


def _loaded(connection: psycopg.Connection[tuple[int]]) -> int:
    row = connection.execute(
        "select coalesce(sum(events_read), 0) from assets where stream is not null and state = 'loaded'"
    ).fetchone()
    return int(row[0]) if row else 0


def result(warehouse_url: str, after: int, ended: float) -> Result:
    """The figures, and whether facts, minutes and ledger agree."""
    with psycopg.connect(warehouse_url) as connection:
        row = connection.execute(
            "select count(*), sum(events_read), extract(epoch from max(loaded_at) - min(planned_at)), "
            "extract(epoch from max(loaded_at)), sum(events_negative) from assets "
            "where id > %s and stream is not null",
            [after],
        ).fetchone()
        counts = connection.execute(
            "select (select sum(events_loaded) from assets where stream is not null), "
            "(select count(*) from telemetry_events), (select sum(events) from telemetry_minutes)"
        ).fetchone()
    assert row is not None
    assert counts is not None
    runs, events, seconds, last, negative = row
    agree = len(set(counts)) == 1
    same = f"yes, and {negative:,} negatives dropped" if agree else f"NO: {counts}"
    return Result(runs, int(events), float(seconds), max(0.0, float(last) - ended), same)


def exported(warehouse_url: str, after: int, path: Path) -> int:
    """Writes the rows loaded since as CSV; returns how many."""
    with psycopg.connect(warehouse_url) as connection, connection.cursor() as cursor, path.open("wb") as file:
        with cursor.copy(f"copy ({PLAIN.format(after=int(after))}) to stdout (format csv)".encode()) as copy:
            for chunk in copy:
                file.write(chunk)
        return cursor.rowcount


def chunks(path: Path) -> Iterator[bytes]:
    """The file, a megabyte at a time."""
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            yield chunk


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--backlog", type=int, default=3_000_000, help="the load waits while more are not loaded")
    options = parser.parse_args()
    requests = list(bodies(DISTINCT, REQUEST))
    up = Up()
    try:
        status = up.start().status()
        assert up.process is not None
        warehouse = status["warehouse_url"]
        queue = RedisStreams(connect(status["redis_url"]))
        warm = WARM_UP * options.backlog
        produce(queue, warehouse, requests, warm, options.backlog)
        wait_for("the warm-up is loaded", lambda: settled(warehouse, warm), 300)
        with psycopg.connect(warehouse) as connection:
            row = connection.execute("select max(id) from assets").fetchone()
        after = int(row[0]) if row else 0
        names = {int(one["pid"]): str(one["name"]) for one in status["services"] if one["pid"]}
        with Watch(up.process.pid, names | {up.process.pid: "up"}) as watch:
            ended = produce(queue, warehouse, requests, options.events, options.backlog)
            wait_for("everything is loaded", lambda: settled(warehouse, options.events + warm), 300)
        found = result(warehouse, after, ended)
        with tempfile.TemporaryDirectory(prefix="pipeline-bench-") as folder:
            file = Path(folder, "rows.csv")
            rows = exported(warehouse, after, file)
            plain = rows / statistics.median(copy_csv(warehouse, chunks(file)) for _ in range(COPIES))
    finally:
        up.remove()
    _print(found, plain, watch)


def _print(found: Result, plain: float, watch: Watch) -> None:
    rate = found.events / found.seconds
    print(f"{found.events:,} events in {found.runs} runs, {found.events / found.runs:,.0f} a run\n")
    print(f"{'queue -> warehouse':<34}{rate:>12,.0f} events/s, {found.seconds:.1f} s from first planned to last loaded")
    print(f"{'COPY csv, text columns, same rows':<34}{plain:>12,.0f} rows/s")
    print(f"{'ratio':<34}{rate / plain:>12.2f}")
    print(f"{'end of the load -> backlog zero':<34}{found.drained:>12.1f} s")
    print(f"{'facts = minutes = ledger':<34}{found.same:>12}\n")
    print(f"{'process, MB':<22}{'RSS':>8}{'peak':>8}{'own, 1st quarter':>18}{'last quarter':>14}{'cpu s':>8}")
    usages = sorted(watch.usages(), key=lambda usage: (usage.name, -usage.cpu))
    for one in usages:
        if one.name == "postgres > child" and one.flat and one.cpu < SHOWN_SECONDS:
            continue
        memory = f"{one.last.resident:>8.0f}{one.peak:>8.0f}{one.first.own:>18.0f}{one.last.own:>14.0f}"
        print(f"{one.name:<22}{memory}{one.cpu:>8.1f}   {'flat' if one.flat else 'GROWING'}")
    print(
        f"{sum(one.flat for one in usages)} of {len(usages)} processes are flat; PostgreSQL's idle ones are not shown"
    )
    busy = sorted(watch.cpu_by_name().items(), key=lambda item: -item[1])
    print(
        "\nprocessor seconds:", ", ".join(f"{name} {seconds:.1f}" for name, seconds in busy if seconds >= SHOWN_SECONDS)
    )


if __name__ == "__main__":
    main()
