"""What unique event ids cost: the same events loaded without ids, with ids, and with ids of which some repeat.

    python -m benchmarks.unique [--events 1000000] [--rounds 3]

Each way is what a run does between the queue and the commit (decode, validate, drop, aggregate, load), in this process
and on one server, in turns. In a round every way loads the same events; the ids are random UUIDs, and the tables are
empty at its start. Of the way with repeats a tenth of the events repeat an id of their own batch or, in equal shares,
of the batch before.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import statistics
import time
import uuid
from collections.abc import Sequence
from random import Random

import numpy as np
import sqlalchemy as sa

from benchmarks.servers import servers
from pipeline_platform.core.batches import Batch
from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.core.events import decode
from pipeline_platform.core.streams import StreamSpec, parse_spec
from pipeline_platform.core.transforms import aggregate, drop_negatives
from pipeline_platform.core.validation import validate
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.event_ids import purge_expired_ids
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.load import ReadyBatch, load
from pipeline_platform.warehouse.migrate import migrate

SPEC = "name: {name}\ndimensions: [source, metric]\nmeasures: [value]\nunique_event_id: {unique}\n"
REQUEST = 1_000  # events a request
WAYS = {"not unique": 0.0, "unique, no repeats": 0.0, "unique, 10 % repeats": 0.1}
_requests = itertools.count(1)


def requests(ids: Sequence[str], seed: int) -> list[Entry]:
    """The events with these ids, as accepted requests."""
    rng, now_ms = np.random.default_rng(seed), int(time.time() * 1000)
    entries = []
    for start in range(0, len(ids), REQUEST):
        part = ids[start : start + REQUEST]
        source, metric = rng.integers(0, 50, len(part)), rng.integers(0, 10, len(part))
        value, ts = rng.random(len(part)) * 100 - 1, now_ms - rng.integers(0, 300_000, len(part))
        lines = [
            f'{{"source":"device-{s:03}","metric":"metric-{m}","value":{v:.6f},"ts":{t},"event_id":"{event_id}"}}\n'
            for s, m, v, t, event_id in zip(
                source.tolist(), metric.tolist(), value.tolist(), ts.tolist(), part, strict=True
            )
        ]
        entries.append(Entry(EntryId(now_ms, next(_requests)), len(part), "".join(lines).encode()))
    return entries


def batches_of_ids(events: int, repeats: float, seed: int) -> list[list[str]]:
    """The ids of two batches."""
    dice = Random(seed)
    batches: list[list[str]] = []
    for _ in range(2):
        fresh = [str(uuid.UUID(int=dice.getrandbits(128))) for _ in range(events)]
        for at in dice.sample(range(events), round(events * repeats)):
            fresh[at] = dice.choice(batches[-1] if batches and at % 2 else fresh)
        batches.append(fresh)
    return batches


def run(engine: sa.Engine, spec: StreamSpec, entries: Sequence[Entry]) -> tuple[float, float, int]:
    """Seconds of the whole and of the load alone, and the repeats that it found."""
    events, size = sum(entry.count for entry in entries), sum(len(entry.data) for entry in entries)
    batch = Batch(spec.name, entries[0].id, entries[-1].id, len(entries), events, size)
    (row,) = Ledger(engine).plan(spec.name, [batch], asset_key="bench", job_name="bench")
    gc.collect()
    began = time.perf_counter()
    valid = validate(decode(entries, spec), entries, spec)
    left = drop_negatives(valid.columns, spec)
    ready = ReadyBatch(
        batch_id=row.id,
        run_id="bench",
        entries=entries,
        columns=left.columns,
        aggregates=aggregate(left.columns),
        rejections=valid.rejections,
        negative_entry=left.dropped_entry,
        late=valid.late,
        negative_ids=left.dropped_ids,
    )
    loading = time.perf_counter()
    outcome = load(engine, spec, ready)
    ended = time.perf_counter()
    assert outcome.read == events
    return ended - began, ended - loading, outcome.duplicate


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    specs = {
        way: parse_spec(SPEC.format(name=f"way_{number}", unique=str(number > 0).lower()), "bench")
        for number, way in enumerate(WAYS)
    }
    whole: dict[str, list[float]] = {}
    loads: dict[str, list[float]] = {}
    found: dict[str, int] = {}
    with servers() as where:
        engine = connect(where.database_url)
        migrate(engine, specs.values())
        for turn in range(options.rounds):
            for way, repeats in WAYS.items():
                spec = specs[way]
                tables = ", ".join(f"{spec.name}_{kind}" for kind in ("events", "minutes"))
                tables += f", {spec.name}_event_ids" if spec.unique_event_id else ""
                with engine.begin() as connection:
                    connection.execute(sa.text(f"truncate {tables}"))
                for number, ids in enumerate(batches_of_ids(options.events, repeats, turn)):
                    seconds, loading, found[way] = run(engine, spec, requests(ids, turn))
                    if number:  # the first one makes partitions and series, and has no batch before it
                        whole.setdefault(way, []).append(seconds)
                        loads.setdefault(way, []).append(loading)
        base = [whole["not unique"], loads["not unique"]]
        print(f"second batch of {options.events:,} events, {options.rounds} rounds, medians\n")
        print(f"{'way':<24}{'repeats':>10}{'run, s':>9}{'ratio':>7}{'load, s':>9}{'ratio':>7}")
        for way in WAYS:
            ratios = [
                statistics.median(mine / plain for mine, plain in zip(values, plains, strict=True))
                for values, plains in zip((whole[way], loads[way]), base, strict=True)
            ]
            seconds, loading = statistics.median(whole[way]), statistics.median(loads[way])
            print(f"{way:<24}{found[way]:>10,}{seconds:>9.2f}{ratios[0]:>7.2f}{loading:>9.2f}{ratios[1]:>7.2f}")
        spec = specs["unique, no repeats"]
        table = f"{spec.name}_event_ids"
        with engine.connect() as connection:
            size = sa.text(f"select count(*), pg_table_size('{table}'), pg_indexes_size('{table}') from {table}")
            rows, heap, indexes = connection.execute(size).one()
        million = rows / 1e6
        print(f"\n{table}: {rows:,} ids, {heap / million / 2**20:.0f} MiB of rows and", end=" ")
        print(f"{indexes / million / 2**20:.0f} MiB of indexes a million ids of 36 characters")
        later = requests([str(uuid.uuid4())], 0)[0]
        eight_days = EntryId(later.id.ms + 8 * 86_400_000, 0)
        Ledger(engine).plan(
            spec.name,
            [Batch(spec.name, eight_days, eight_days, 1, 1, 1)],
            asset_key="bench",
            job_name="bench",
        )
        with engine.begin() as connection:
            moved = "update {} set received_at = received_at - interval '8 days'"
            connection.execute(sa.text(moved.format(table)))
            connection.execute(
                sa.text("update assets set first_ms = first_ms - 691200000, last_ms = last_ms - 691200000")
            )
        began = time.perf_counter()
        purged = purge_expired_ids(engine, spec)
        print(f"purge: {purged:,} ids, {purged / (time.perf_counter() - began):,.0f} a second")
        engine.dispose()


if __name__ == "__main__":
    main()
