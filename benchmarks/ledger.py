"""What a stream's totals cost as its ledger grows: added up from the beginning, and after a fold.

    python -m benchmarks.ledger [--batches 1000000]

`/v1/stats` asks for them every second while somebody looks, of every stream, also of one without any batch. Each way
is the statement that the gateway runs, in turns, on one server whose ledger has that many loaded batches, seven a
second: the 4,200 of the last ten minutes are not folded, as many as an hour of one a second leaves.
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from benchmarks.servers import servers
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.ledger_retention import purge_batches
from pipeline_platform.warehouse.ledger_totals import fold_totals, stream_totals

FILL = """
insert into assets (asset_key, job_name, stream, state, attempt, run_id, run_ids, first_ms, first_seq, last_ms,
    last_seq, entries, events_planned, bytes_planned, events_read, events_loaded, planned_at, requested_at, started_at,
    loaded_at)
select 'warehouse/telemetry_events', 'ingest_telemetry', 'telemetry', 'loaded', 1, run, array[run], n * 1000, 0,
    n * 1000 + 900, 0, 10, 1000, 100000, 1000, 1000, at, at, at, at
from generate_series(1, :batches) n,
    lateral (select md5(n::text) as run, now() - make_interval(secs => (:batches - n) / 7.0) as at) each
"""


def seconds(engine: sa.Engine, rounds: int) -> float:
    """The median of some rounds, after one that counts for nothing: of the stream, and of one that has no batch."""
    took = []
    for number in range(rounds + 1):
        began = time.perf_counter()
        for stream in ("telemetry", "orders"):
            stream_totals(engine, stream)
        if number:
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def main() -> None:
    """Prints the times and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with servers() as urls:
        engine = connect(urls.database_url)
        with engine.begin() as connection:
            connection.execute(sa.text(FILL), {"batches": options.batches})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("vacuum analyze assets"))
        before, sums = seconds(engine, options.rounds), stream_totals(engine, "telemetry")
        began = time.perf_counter()
        for stream in ("telemetry", "orders"):
            fold_totals(engine, stream)
        folding = time.perf_counter() - began
        after = seconds(engine, options.rounds)
        assert stream_totals(engine, "telemetry") == sums
        began = time.perf_counter()
        purged = purge_batches(engine, "telemetry", datetime.now(UTC) - timedelta(hours=1))
        purging = time.perf_counter() - began
        assert stream_totals(engine, "telemetry") == sums
        engine.dispose()
    print(f"{options.batches:,} batches: totals {before * 1000:.1f} ms, after a fold {after * 1000:.1f} ms ")
    print(f"({before / after:.0f}x); the fold {folding:.2f} s; {purged:,} deleted in {purging:.1f} s")


if __name__ == "__main__":
    main()
