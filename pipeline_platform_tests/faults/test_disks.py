"""Full disks and power cuts under Valkey and PostgreSQL."""

from __future__ import annotations

import contextlib
import time

import pytest

from pipeline_platform.local.process_table import session_members
from pipeline_platform_tests.faults import disks
from pipeline_platform_tests.faults.crowd import Crowd
from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.freezes import frozen
from pipeline_platform_tests.faults.rows import Row, keep
from pipeline_platform_tests.faults.stand import Stand
from pipeline_platform_tests.faults.trial import trial
from pipeline_platform_tests.oracle import judge

LACKING = disks.missing()
# Whoever runs the short form without root has no disks to break. Anywhere else a missing tool is a failure.
pytestmark = pytest.mark.skipif("needs root" in LACKING and not FORM.long, reason=LACKING)
BOTH = "every server"
NAMES = {"Valkey": "valkey", "PostgreSQL": "postgres"}
SERVERS = list(NAMES) if FORM.long else [BOTH]
LEAST, MOST, FULL = (1.0, 4.0, 15.0) if FORM.long else (0.5, 2.0, 3.0)  # seconds: between two faults, and a full disk


@pytest.fixture(autouse=True)
def _tools() -> None:
    assert not LACKING, f"this part of the suite cannot run: {LACKING}"


def _schedule(server: str) -> list[str]:
    return [NAMES[server]] * FORM.rounds if server != BOTH else list(NAMES.values())


@pytest.mark.timeout(10_800)
@pytest.mark.parametrize("server", SERVERS)
def test_what_was_acknowledged_survives_power_cuts(stand: Stand, server: str) -> None:
    with trial(stand, "disks", f"power cut of the disk of {server}") as under:
        for name in _schedule(server):
            stand.pid(name)
            under.pause(LEAST, MOST)
            stand.disks[name].cut_power()
            under.times += 1


@pytest.mark.timeout(10_800)
@pytest.mark.parametrize("server", SERVERS)
def test_a_full_disk_delays_and_loses_nothing(stand: Stand, server: str) -> None:
    with trial(stand, "disks", f"full disk of {server}") as under:
        for name in _schedule(server):
            stand.pid(name)
            under.pause(LEAST, MOST)
            with stand.disks[name].full():
                time.sleep(FULL)
            under.times += 1


@pytest.mark.skipif(not FORM.long, reason="costs a stack: PIPELINE_FAULTS=long")
@pytest.mark.timeout(600)
def test_a_queue_that_does_not_sync_is_caught(stand: Stand) -> None:
    """Given a Valkey without fsync, if the power goes before anything is loaded, I expect the oracle to miss events."""
    stand.spoiled = True
    crowd = Crowd(stand.where, f"{FORM.seed}/unsynced")
    with contextlib.closing(stand.redis()) as client:
        client.config_set("appendfsync", "no")
    with frozen(session_members(stand.pid("daemon"))):
        with crowd.sending():
            time.sleep(3)
        stand.disks["valkey"].cut_power()
    stand.wait_until_ready()
    time.sleep(10)  # what is still there would be loaded by now
    sent = [*stand.sent.get("telemetry", []), *crowd.requests]
    seen = judge(stand.where.warehouse_url, sent)
    what = "planted: Valkey does not sync, power cut"
    keep(Row("planted", what, 1, crowd.acknowledged, seen.lost, seen.doubled, seen.differences, 0.0, 0.0, FORM.seed))
    assert seen.lost > 0
