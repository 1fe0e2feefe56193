"""Dagster's stock PostgreSQL storage against the pooled one: connects, statements and time of a five-op run.

Run it as `python -m benchmarks.runtime_storage [--runs 20]`. Both take turns on the same server; the ratio counts.
"""

# No postponed annotations here: Dagster reads them at run time.

import argparse
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import sqlalchemy as sa
import yaml

from benchmarks.servers import servers
from benchmarks.trivial_jobs import trivial
from pipeline_platform.local.databases import ensure_databases

STOCK = ("dagster_postgres", "DagsterPostgresStorage")
POOLED = ("pipeline_platform.orchestration.runtime.storage", "PooledPostgresStorage")


@contextmanager
def instance(storage: tuple[str, str], url: str) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance with that storage, as dagster.yaml would give it."""
    settings = {
        "storage": {"custom": {"module": storage[0], "class": storage[1], "config": {"postgres_url": url}}},
        "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"},
        "telemetry": {"enabled": False},
    }
    with tempfile.TemporaryDirectory() as home:
        with open(f"{home}/dagster.yaml", "w") as file:
            yaml.safe_dump(settings, file)
        with dg.DagsterInstance.from_config(home) as made:
            yield made


def main() -> None:
    """Prints one line a storage and the ratio of the medians."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="runs of each storage")
    runs: int = parser.parse_args().runs
    counts: Counter[str] = Counter()
    sa.event.listen(sa.engine.Engine, "before_cursor_execute", lambda *_: counts.update(["statements"]))
    sa.event.listen(sa.pool.Pool, "connect", lambda *_: counts.update(["connects"]))
    with servers() as running:
        url = sa.make_url(running.database_url)
        ensure_databases(running.database_url, ["stock", "pooled"])
        times: dict[str, list[float]] = {"stock": [], "pooled": []}
        totals: dict[str, Counter[str]] = {"stock": Counter(), "pooled": Counter()}
        places = {
            name: url.set(drivername="postgresql+psycopg2", database=name)
            .update_query_dict({"options": "-c synchronous_commit=off"})
            .render_as_string(hide_password=False)
            for name in times
        }
        with instance(STOCK, places["stock"]) as stock, instance(POOLED, places["pooled"]) as pooled:
            for turn in range(runs + 1):
                for name, one in (("stock", stock), ("pooled", pooled)):
                    counts.clear()
                    started = time.perf_counter()
                    if not trivial.execute_in_process(instance=one).success:
                        raise SystemExit(f"a run failed on the {name} storage")
                    if turn:  # the first fills caches
                        times[name].append(time.perf_counter() - started)
                        totals[name] += counts
    for name, values in times.items():
        total = totals[name]
        print(
            f"{name:7} p50 {statistics.median(values) * 1000:6.1f} ms   "
            f"{total['connects'] / runs:5.1f} connects   {total['statements'] / runs:5.1f} statements a run"
        )
    print(f"stock / pooled: {statistics.median(times['stock']) / statistics.median(times['pooled']):.1f}x")


if __name__ == "__main__":
    main()
