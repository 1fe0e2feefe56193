"""A network that fails: resets between the server's commit and the client's reply, delays, half-open connections."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.own_servers import ProxiedStand
from pipeline_platform_tests.faults.proxy import Weather
from pipeline_platform_tests.faults.trial import trial
from pipeline_platform_tests.oracle import wait_for

SECONDS = 15.0 * FORM.rounds if FORM.long else 7.0
LONGEST = 60.0  # what chance has not done by then it never will
COMMIT = (b"COMMIT\0",)  # the tag of CommandComplete: the server has committed, the client has not heard of it


def _blows(struck: Callable[[], bool]) -> None:
    """Lets the weather blow for its time, and on until chance has struck: a slow machine gives it few answers."""
    time.sleep(SECONDS)
    wait_for("the weather has struck", struck, LONGEST)


@pytest.mark.timeout(3600)
def test_resets_after_the_commit_and_before_the_reply(proxied: ProxiedStand) -> None:
    queue, warehouse = proxied.queue.resets, proxied.warehouse.resets
    with trial(proxied, "proxy", "resets after Redis's answer and PostgreSQL's commit") as under:
        proxied.queue.weather = Weather(reset=0.1)
        proxied.warehouse.weather = Weather(reset=0.2, marks=COMMIT)
        _blows(lambda: proxied.queue.resets > queue and proxied.warehouse.resets > warehouse)
        proxied.calm()
        resets = proxied.queue.resets - queue, proxied.warehouse.resets - warehouse
        under.times = sum(resets)
        under.note = "{} resets of Redis, {} of PostgreSQL; ".format(*resets)


@pytest.mark.timeout(3600)
def test_half_open_and_slow_connections(proxied: ProxiedStand) -> None:
    with trial(proxied, "proxy", "half-open connections and 20 ms of delay") as under:
        queue, warehouse = proxied.queue.frozen, proxied.warehouse.frozen
        proxied.queue.weather = Weather(freeze=0.005, delay=0.02)
        proxied.warehouse.weather = Weather(freeze=0.002, delay=0.02)
        _blows(lambda: proxied.queue.frozen > queue or proxied.warehouse.frozen > warehouse)
        proxied.calm()
        under.times = proxied.queue.frozen - queue + proxied.warehouse.frozen - warehouse
