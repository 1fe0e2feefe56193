"""Each part is killed once while events come in; afterwards every event is where it belongs.

PIPELINE_FAULTS=long kills each of them five times.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import Load, Producer, differences, settled, wait_for

ROUNDS = 5 if os.environ.get("PIPELINE_FAULTS") == "long" else 1
SEED = int(os.environ.get("PIPELINE_SEED", "7"))


@pytest.fixture
def stack() -> Iterator[Up]:
    # Lost requests are looked for sooner than in production, so that the test ends sooner.
    up = Up(env={"PIPELINE_LOST_RUN_AFTER": "20"})
    try:
        yield up.start()
    finally:
        up.remove()


def _children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == pid:
                found.append(int(entry.name))
    return found


def _kill(up: Up, victim: str) -> None:
    """SIGKILL of a service, or of one of the worker's children: the process that runs the ops."""
    pid = up.pid("worker" if victim == "run" else victim)
    os.kill(_children(pid)[-1] if victim == "run" else pid, signal.SIGKILL)


@pytest.mark.timeout(900)
def test_nothing_is_lost_or_doubled_when_each_part_is_killed_once(stack: Up) -> None:
    where = stack.status()
    rng = random.Random(SEED)
    victims = ["run", "daemon", "gateway", "valkey", "worker", "postgres", "code", "dagster", "etl"] * ROUNDS
    print(f"seed {SEED}, victims {victims}")
    with Load(Producer(where["gateway_url"], where["api_key"], rng)) as load:
        time.sleep(3)
        for victim in victims:
            _kill(stack, victim)
            time.sleep(rng.uniform(4, 8))
        time.sleep(3)
    sent = load.producer.requests
    acknowledged = sum(request.events for request in sent if request.outcome == "acknowledged")
    assert acknowledged > 1000

    wait_for("everything accepted is loaded", lambda: settled(where["warehouse_url"], acknowledged), 240)

    assert differences(where["warehouse_url"], sent) == []
    restarts = {row["name"]: row["restarts"] for row in stack.status()["services"]}
    for victim in set(victims) - {"run"}:
        assert restarts[victim] >= 1, restarts
