"""Dead letters replayed through a whole stack: seconds until the last commit, and nothing lost or doubled.

    python -m benchmarks.replay [--letters 100000] [--kills 0]

Every event is refused for a field that the stream does not declare, and passes once the replay's edit has removed it;
every twentieth is negative then. The request is made by four threads at once: together they take each letter once.
With `--kills` the workers are killed so often while the replay runs, a few seconds apart.
"""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time

import orjson
import psycopg

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.streams import load_specs
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.protocol import NewEntry
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.warehouse.dead_letters import LetterFilter
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.replay_preview import preview
from pipeline_platform.warehouse.replays import begin
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import settled, wait_for

EVENTS = 500  # a request
EDIT = Edit.parse({"merge": {"colour": None}})
CHECKS = """
select
    (select count(*) from telemetry_events),
    (select count(distinct value) from telemetry_events),
    (select coalesce(sum(events), 0) from telemetry_minutes),
    (select sum(events_negative) from assets where kind = 'replay'),
    (select count(*) from dead_letters where state = 'replayed'),
    (select count(*) from dead_letters where state <> 'replayed'),
    (select count(*) from replays where state <> 'done'),
    (select sum(passed + negative + failed) from replays)
"""


def fill(queue: RedisStreams, letters: int) -> None:
    """Queues that many events which will be refused."""
    for first in range(0, letters, EVENTS):
        numbers = range(first + 1, min(first + EVENTS, letters) + 1)
        lines = [orjson.dumps(_event(number)) for number in numbers]
        queue.append([NewEntry("telemetry", len(lines), b"".join(line + b"\n" for line in lines), "bench")])


def _event(number: int) -> dict[str, object]:
    value = -number if number % 20 == 0 else number
    return {"source": f"s{number % 50}", "metric": "m", "value": value, "colour": "red"}


def measure(letters: int, kills: int) -> None:
    """Fills, replays, checks and prints."""
    up = Up(env={"PIPELINE_BREAKER_MIN_REJECTS": str(10**9)})
    try:
        where = up.start().status()
        url = where["warehouse_url"]
        fill(RedisStreams(connect_queue(where["redis_url"])), letters)
        wait_for("every event is a dead letter", lambda: settled(url, letters), 600)
        engine = connect(url, pool_size=6, application="replay benchmark")
        began = time.monotonic()
        seen = preview(engine, load_specs(), LetterFilter(), EDIT)
        tried = f"{seen.would_pass:,} pass, {seen.negative:,} negative of {seen.tried:,} tried, {seen.matched:,} match"
        print(f"{'dry run':<24}{time.monotonic() - began:>8.2f} s   {tried}", flush=True)

        taken: list[int] = []

        def press() -> None:
            one = begin(engine, LetterFilter(), EDIT, requested_by="benchmark", streams=("telemetry",))
            taken.append(one.matched)

        threads = [threading.Thread(target=press) for _ in range(4)]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        print(f"{'requested by four':<24}{time.monotonic() - began:>8.2f} s   each took {sorted(taken)}", flush=True)
        for _ in range(kills):
            time.sleep(3.0)
            for service in up.status()["services"]:
                if service["name"] in ("worker", "etl"):
                    os.kill(int(service["pid"]), signal.SIGKILL)
        wait_for("the replay is done", lambda: _done(url), 600)
        whole = time.monotonic() - began
        print(f"{'requested to done':<24}{whole:>8.2f} s   {letters / whole:,.0f} letters/s", flush=True)
        with psycopg.connect(url) as connection:
            found = connection.execute(CHECKS).fetchone()
        negative = letters // 20
        good = letters - negative
        wanted = (good, good, good, negative, letters, 0, 0, letters)
        assert found is not None
        same = tuple(map(int, found)) == wanted and sum(taken) == letters
        print(f"nothing lost or doubled: {'yes' if same else f'NO: {found}, wanted {wanted}, took {taken}'}")
        engine.dispose()
    finally:
        up.remove()


def _done(url: str) -> bool:
    with psycopg.connect(url) as connection:
        row = connection.execute("select count(*) from replays where state = 'running'").fetchone()
    return row == (0,)


def main() -> None:
    """Measures once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--letters", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=0)
    options = parser.parse_args()
    measure(options.letters, options.kills)


if __name__ == "__main__":
    main()
