"""Redis without memory, PostgreSQL without connections, deadlocks: answered, waited for, and got over."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import pytest

from pipeline_platform_tests.faults.form import FORM
from pipeline_platform_tests.faults.limits import force_deadlocks, is_out_of_memory, out_of_connections, out_of_memory
from pipeline_platform_tests.faults.stand import Stand
from pipeline_platform_tests.faults.trial import Trial, trial
from pipeline_platform_tests.oracle import wait_for

ROUNDS, SECONDS = (FORM.rounds, 20.0) if FORM.long else (1, 3.0)


def _memory(under: Trial) -> None:
    with out_of_memory(under.stand):
        assert is_out_of_memory(under.stand)
        wait_for("clients are told to come back", partial(_more_503, under, under.crowd.answers[503]), 20)
        time.sleep(SECONDS)
    under.times += 1


def _more_503(under: Trial, than: int) -> bool:
    return under.crowd.answers[503] > than


def _connections(under: Trial) -> None:
    with out_of_connections(under.stand) as held:
        under.note = f"{held} connections were held; "
        time.sleep(SECONDS)
    under.times += 1


def _deadlocks(under: Trial) -> None:
    """At least one; they are counted by PostgreSQL."""
    before, until = under.times, time.monotonic() + 60
    while under.times == before and time.monotonic() < until:
        under.times += force_deadlocks(under.stand, 2 * SECONDS)
    assert under.times > before, "there was no deadlock"


LIMITS: dict[str, Callable[[Trial], None]] = {
    "Redis out of memory": _memory,
    "PostgreSQL out of connections": _connections,
    "forced deadlocks": _deadlocks,
}
ALL = ", ".join(LIMITS)


@pytest.mark.timeout(10_800)
@pytest.mark.parametrize("limit", list(LIMITS) if FORM.long else [ALL])
def test_a_limit_delays_and_loses_nothing(stand: Stand, limit: str) -> None:
    with trial(stand, "limits", limit) as under:
        for name in [limit] * ROUNDS if limit != ALL else LIMITS:
            under.pause(0.5, 1)
            LIMITS[name](under)
