"""Queue -> warehouse: one whole run over a million events, beside the ways people load rows otherwise.

    python -m benchmarks.load [--events 1000000] [--rounds 3]

The run is the real Dagster job, in process: read, decode, validate, drop, aggregate, load, ledger, and Dagster's
events (in SQLite here). Beside it, on the same server in the same round: COPY of the same rows as CSV with text
columns, psycopg's executemany, SQLAlchemy's bulk insert and DataFrame.to_sql. Ratios are what counts.
"""

from __future__ import annotations

import argparse
import io
import multiprocessing
import resource
import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import psycopg
import sqlalchemy as sa

from benchmarks.events import fill
from benchmarks.servers import Servers, servers

OUT = Path(__file__).parent / "out"
SLOW_SHARE = 20  # the slow ways load a twentieth of the rows: their rate does not depend on the number


def the_job() -> Any:
    """The ingest job as the platform defines it, for Dagster to find."""
    from pipeline_platform.orchestration.definitions import definitions

    return definitions().resolve_job_def("ingest_telemetry")


def run_batches(where: Servers, batches: int, events: int, pipe: Any) -> None:
    """In a process of its own, as a worker's child: loads batches by the Dagster job; sends seconds and peak MB."""
    import os

    os.environ |= {"DATABASE_URL": where.database_url, "REDIS_URL": where.redis_url}
    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    import dagster as dg

    from pipeline_platform.core.batches import plan_batches
    from pipeline_platform.orchestration.resources import CALM
    from pipeline_platform.queue.connection import connect as connect_queue
    from pipeline_platform.queue.redis_streams import RedisStreams
    from pipeline_platform.warehouse.engine import connect
    from pipeline_platform.warehouse.ledger import Ledger

    ledger, queue = Ledger(connect(where.database_url)), RedisStreams(connect_queue(where.redis_url))
    job = dg.reconstructable(the_job)
    instance = dg.DagsterInstance.local_temp()
    for _ in range(batches):
        waiting = queue.waiting("telemetry", ledger.last_planned("telemetry"), 100_000)
        cut = plan_batches("telemetry", waiting, max_events=events, max_bytes=2**31, max_batches=1)
        (row,) = ledger.plan("telemetry", cut, asset_key="bench", job_name="bench")
        ledger.request(row.id, 1)
        config = {**CALM, "ops": {"ingest_telemetry_batch": {"config": {"batch_id": row.id, "attempt": 1}}}}
        began = time.perf_counter()
        with dg.execute_job(job, instance, run_config=config) as result:
            seconds = time.perf_counter() - began
            assert result.success
        done = ledger.get(row.id)
        assert done is not None
        assert done.state == "loaded"
        assert done.events_read == events
        queue.trim("telemetry", ledger.watermark("telemetry"))
        # Not getrusage's ru_maxrss: across an exec it keeps the peak of the process that forked.
        status = Path("/proc/self/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
        current = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20
        pipe.send((seconds, peak, current))
    pipe.send(None)


def ours(where: Servers, batches: int, events: int) -> list[tuple[float, float, float]]:
    """Seconds, peak MB and current MB after each of the batches."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=run_batches, args=(where, batches, events, theirs))
    process.start()
    measured = []
    while (row := mine.recv()) is not None:
        measured.append(row)
    process.join()
    return measured


def sample(where: Servers, rows: int) -> pd.DataFrame:
    """The rows that the run just loaded, as people have them: with text columns."""
    query = "select ts, received_at, source, metric, value, batch_id from telemetry limit :rows"
    with sa.create_engine(_url(where)).connect() as connection:
        return pd.read_sql(sa.text(query), connection, params={"rows": rows})


def csv_copy(where: Servers, frame: pd.DataFrame) -> float:
    """Rows a second of COPY ... (FORMAT csv); making the CSV is not counted."""
    buffer = io.StringIO()
    frame.to_csv(buffer, index=False, header=False)
    data = buffer.getvalue().encode()
    return len(frame) / copy_csv(where.database_url, (data[at : at + (1 << 20)] for at in range(0, len(data), 1 << 20)))


def copy_csv(database_url: str, chunks: Iterable[bytes]) -> float:
    """Seconds of COPY of CSV rows, as `sample` has them, into a fresh table of text columns."""
    with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
        _table(cursor)
        connection.commit()
        began = time.perf_counter()
        with cursor.copy("copy plain_rows from stdin (format csv)") as copy:
            for chunk in chunks:
                copy.write(chunk)
        connection.commit()
        return time.perf_counter() - began


def executemany(where: Servers, frame: pd.DataFrame) -> float:
    """Rows a second of psycopg's executemany."""
    rows = list(frame.itertuples(index=False, name=None))
    with psycopg.connect(where.database_url) as connection, connection.cursor() as cursor:
        _table(cursor)
        connection.commit()
        began = time.perf_counter()
        cursor.executemany("insert into plain_rows values (%s, %s, %s, %s, %s, %s)", rows)
        connection.commit()
        return len(rows) / (time.perf_counter() - began)


def bulk_insert(where: Servers, frame: pd.DataFrame) -> float:
    """Rows a second of SQLAlchemy Core's bulk insert."""
    engine = sa.create_engine(_url(where))
    table = sa.Table("plain_rows", sa.MetaData(), *(sa.Column(name) for name in frame.columns))
    rows = frame.to_dict("records")
    with engine.begin() as connection:
        connection.execute(sa.text("truncate plain_rows"))
    began = time.perf_counter()
    with engine.begin() as connection:
        connection.execute(sa.insert(table), rows)  # type: ignore[arg-type]
    seconds = time.perf_counter() - began
    engine.dispose()
    return len(rows) / seconds


def to_sql(where: Servers, frame: pd.DataFrame) -> float:
    """Rows a second of DataFrame.to_sql with its defaults."""
    engine = sa.create_engine(_url(where))
    began = time.perf_counter()
    frame.to_sql("plain_frame", engine, index=False, if_exists="replace")
    seconds = time.perf_counter() - began
    engine.dispose()
    return len(frame) / seconds


def _url(where: Servers) -> str:
    return where.database_url.replace("postgresql://", "postgresql+psycopg://", 1)


def _table(cursor: psycopg.Cursor[Any]) -> None:
    cursor.execute("drop table if exists plain_rows")
    cursor.execute(
        "create table plain_rows (ts timestamptz, received_at timestamptz, source text, metric text, "
        "value float8, batch_id int8)"
    )


def main() -> None:
    """Measures and prints the table; draws benchmarks/out/load.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    rates: dict[str, list[float]] = {}
    memory: list[tuple[float, float]] = []
    with servers() as where:
        from pipeline_platform.queue.connection import connect as connect_queue
        from pipeline_platform.queue.redis_streams import RedisStreams

        queue = RedisStreams(connect_queue(where.redis_url))
        for turn in range(options.rounds):
            size = fill(queue, 2 * options.events // 1000, seed=turn)
            measured = ours(where, 2, options.events)
            # The first batch of a process also pays for connections, new partitions and new series.
            for name, (seconds, _, _) in zip(("first run of a worker", "next run"), measured, strict=True):
                rates.setdefault(f"pipeline, {name}", []).append(options.events / seconds)
            memory += [(peak, now) for _, peak, now in measured]
            frame = sample(where, options.events)
            few = frame.head(options.events // SLOW_SHARE)
            rates.setdefault("COPY csv, text columns", []).append(csv_copy(where, frame))
            rates.setdefault("psycopg executemany", []).append(executemany(where, few))
            rates.setdefault("SQLAlchemy bulk insert", []).append(bulk_insert(where, few))
            rates.setdefault("DataFrame.to_sql", []).append(to_sql(where, few))
        fill(queue, 5 * options.events // 1000, seed=99)
        flat = ours(where, 5, options.events)
    base = statistics.median(rates["COPY csv, text columns"])
    print(f"{options.events:,} events a run, {size / 2 / options.events:.0f} bytes a line, {options.rounds} rounds\n")
    print(f"{'way':<34}{'rows/s, median':>16}{'ratio to CSV COPY':>20}")
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        print(f"{name:<34}{rate:>16,.0f}{rate / base:>20.2f}")
    print(f"\nrun process, peak memory: {max(peak for peak, _ in memory):.0f} MB")
    print("memory after each of five runs in one process, MB:", ", ".join(f"{now:.0f}" for _, _, now in flat))
    _plot(medians)


def _plot(medians: dict[str, float]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    OUT.mkdir(exist_ok=True)
    figure, axes = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    names = list(medians)[::-1]
    colours = ["#2a6fdb" if name.startswith("pipeline") else "#b8bec8" for name in names]
    bars = axes.barh(names, [medians[name] for name in names], color=colours)
    axes.bar_label(bars, labels=[f"{medians[name]:,.0f}" for name in names], padding=4)
    axes.set_xlabel("rows per second, median")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(OUT / "load.png", dpi=130)
    print(f"\nplot: {OUT / 'load.png'}")


if __name__ == "__main__":
    main()
