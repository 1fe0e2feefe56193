"""XADD -> RUN_SUCCESS of the real ingest run for a single event, our runtime beside stock Dagster.

    python -m benchmarks.runtime [--events 15] [--pause 4]

Both run the same code location on the same kind of servers, one after the other. Stock is Dagster's own daemon, run
launcher and PostgreSQL storage (benchmarks/stock_dagster.yaml), with the planner's sensor at its shortest interval of
1 s and no waiting inside the tick. The time of an event is its queue entry's id; the end of its run is Dagster's.
Also measured: what everything costs while nothing happens.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import psycopg

from benchmarks.processes import cpu_seconds, family, pss
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.protocol import Appended, NewEntry
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform_tests.acceptance.stacks import Up

HERE = Path(__file__).parent
OUT = HERE / "out"
STOCK = {
    "PIPELINE_DAEMON": "stock",
    "PIPELINE_DAGSTER_YAML": str(HERE / "stock_dagster.yaml"),
    "PIPELINE_SENSOR_INTERVAL": "1",
    "PIPELINE_SENSOR_HOLD_SECONDS": "0.01",
}
EVENT = b'{"source":"bench","metric":"m","value":1}\n'


def latencies(up: Up, events: int, pause: float) -> list[float]:
    """Seconds from the entry to the end of its run, one event at a time."""
    where = up.status()
    queue = RedisStreams(connect(where["redis_url"]))
    dagster = up.dagster_database_url
    found = []
    for _ in range(events + 1):
        (entry,) = queue.append([NewEntry("telemetry", 1, EVENT, "bench")])
        assert isinstance(entry, Appended)
        run_id = _run_of(where["warehouse_url"], entry)
        found.append(_end_of(dagster, run_id) - entry.id.ms / 1000)
        time.sleep(pause)
    return found[1:]  # the first run of a process is not what people wait for


def _run_of(warehouse_url: str, entry: Appended) -> str:
    query = (
        "select run_id from assets where stream = 'telemetry' and state = 'loaded' "
        "and (first_ms, first_seq) <= (%s, %s) and (last_ms, last_seq) >= (%s, %s)"
    )
    with psycopg.connect(warehouse_url, autocommit=True) as connection:
        for _ in range(1200):
            row = connection.execute(query, [*entry.id, *entry.id]).fetchone()
            if row:
                return str(row[0])
            time.sleep(0.05)
    raise SystemExit("the event was not loaded within a minute")


def _end_of(dagster_url: str, run_id: str) -> float:
    with psycopg.connect(dagster_url, autocommit=True) as connection:
        for _ in range(1200):
            row = connection.execute(
                "select end_time from runs where run_id = %s and status = 'SUCCESS'", [run_id]
            ).fetchone()
            if row and row[0]:
                return float(row[0])
            time.sleep(0.05)
    raise SystemExit("the run did not succeed within a minute")


def idle(up: Up, seconds: float) -> tuple[float, float]:
    """The share of one core and the resident megabytes of the whole stack while nothing comes in."""
    assert up.process is not None
    pids = family(up.process.pid)
    before, began = sum(map(cpu_seconds, pids)), time.monotonic()
    time.sleep(seconds)
    used = sum(map(cpu_seconds, pids)) - before
    memory = sum(map(pss, pids))
    return used / (time.monotonic() - began), memory


def main() -> None:
    """Measures and prints the table; draws benchmarks/out/runtime.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=15)
    parser.add_argument("--pause", type=float, default=4.0, help="seconds between events")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds of idling to measure")
    options = parser.parse_args()
    measured: dict[str, list[float]] = {}
    print(f"{'':<12}{'p50':>10}{'p95':>10}   seconds, XADD -> RUN_SUCCESS   idle: cores, MB (PSS)")
    for name, environment in (("stock", STOCK), ("ours", {})):
        up = Up(env=environment)
        try:
            up.start()
            measured[name] = latencies(up, options.events, options.pause)
            time.sleep(10)
            cores, memory = idle(up, options.idle)
        finally:
            up.remove()
        p50, p95 = np.percentile(measured[name], [50, 95])
        print(f"{name:<12}{p50:>10.3f}{p95:>10.3f}{'':>32}{cores:>18.2f}, {memory:.0f}", flush=True)
    ratio = float(np.median(measured["stock"]) / np.median(measured["ours"]))
    print(f"\nratio of the medians: {ratio:.1f}")
    _plot(measured)


def _plot(measured: dict[str, list[float]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    OUT.mkdir(exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(7, 2.6), layout="constrained")
    names = {"stock": "stock Dagster", "ours": "this runtime"}
    for row, (name, colour) in enumerate((("ours", "#2a6fdb"), ("stock", "#b8bec8"))):
        axes.scatter(measured[name], [row] * len(measured[name]), color=colour, alpha=0.7, s=36)
        axes.scatter([float(np.median(measured[name]))], [row], marker="|", s=600, color="black")
    axes.set(yticks=[0, 1], yticklabels=[names["ours"], names["stock"]], ylim=(-0.6, 1.6), xlim=(0, None))
    axes.set_xlabel("seconds from the event in the queue to the end of its run (bar: median)")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(OUT / "runtime.png", dpi=130)
    print(f"plot: {OUT / 'runtime.png'}")


if __name__ == "__main__":
    main()
