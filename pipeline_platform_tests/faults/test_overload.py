"""Twice as much as the platform can load: it says so, stays small, and loads what it took."""

from __future__ import annotations

import time

import pytest

from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.overload import Flood, Memory
from pipeline_platform_tests.faults.rows import Row, keep
from pipeline_platform_tests.faults.stand import Stand
from pipeline_platform_tests.oracle import judge, settled, wait_for

STREAM = "telemetry"
FLAT = 48 * 2**20  # bytes that are no growth: buffers of requests, fragments
PROBE, SECONDS = (20.0, FORM.overload_seconds) if FORM.long else (3.0, 10.0)


@pytest.mark.timeout(3600)
def test_at_twice_the_capacity_only_202_429_and_503_are_answered(stand: Stand) -> None:
    where = stand.where
    before = stand.sent.setdefault(STREAM, [])
    stand.spoiled = True
    base = sum(request.events for request in before if request.outcome == "acknowledged")

    probe = Flood(where, 1e9)
    began = time.monotonic()
    with probe.running():
        time.sleep(PROBE)
    wait_for("the probe is loaded", lambda: settled(where.warehouse_url, base + probe.acknowledged, STREAM), 300)
    capacity = probe.acknowledged / (time.monotonic() - began)

    flood, memory = Flood(where, 2 * capacity), Memory(stand, ("gateway", "valkey"))
    until = time.monotonic() + SECONDS
    with flood.running():
        while time.monotonic() < until:
            memory.sample()
            time.sleep(SECONDS / 60)
    accepted = base + probe.acknowledged + flood.acknowledged
    drained = wait_for("everything is loaded", lambda: settled(where.warehouse_url, accepted, STREAM), 600)

    before += probe.requests + flood.requests
    verdict = judge(where.warehouse_url, before, STREAM, stand.spec(STREAM))
    growth = {name: f"{memory.growth(name) >> 20} MB" for name in memory.samples}
    largest = {name: f"{max(samples) >> 20} MB" for name, samples in memory.samples.items()}
    row = Row(
        "overload",
        f"twice the capacity for {SECONDS:.0f} s",
        1,
        flood.acknowledged,
        verdict.lost,
        verdict.doubled,
        verdict.differences,
        0.0,
        drained,
        FORM.seed,
        f"capacity {capacity:,.0f} events/s, answers {dict(flood.answers)}, memory at most {largest}, grew {growth}",
    )
    keep(row)
    assert set(flood.answers) <= {202, 429, 503}, flood.answers
    assert not FORM.long or set(flood.answers) & {429, 503}, "it was never too much"
    assert verdict.differences == (), verdict.differences
    assert all(memory.growth(name) < FLAT for name in memory.samples), (growth, memory.samples)
    stand.spoiled = False
