"""Dagster's internals are what the runtime takes them for; a failure names what moved."""

from __future__ import annotations

import inspect
import pydoc
import time
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest
from dagster._core.remote_representation.external import RemoteSensor
from dagster._core.remote_representation.external_data import SensorSnap
from dagster._core.scheduler.instigation import InstigatorState, SensorInstigatorData
from dagster._daemon.sensor import is_under_min_interval

from pipeline_platform.orchestration.runtime import internals, launcher, warm_child, warm_jobs, worker
from pipeline_platform.orchestration.runtime.daemon import CONTINUOUS
from pipeline_platform.orchestration.runtime.patience import pause


def under(minimum_interval_seconds: int | None, elapsed: float) -> bool:
    """Whether Dagster thinks a sensor too early whose last tick started `elapsed` seconds ago."""
    sensor = dg.SensorDefinition(
        name="any", evaluation_fn=lambda _: None, job_name="any", minimum_interval_seconds=minimum_interval_seconds
    )
    snap = SensorSnap(
        name="any",
        job_name="any",
        op_selection=None,
        mode=None,
        min_interval=sensor.minimum_interval_seconds,
        description=None,
        target_dict={},
    )
    seconds = cast(Any, RemoteSensor.min_interval_seconds).fget(SimpleNamespace(_sensor_snap=snap))
    started = SensorInstigatorData(last_tick_start_timestamp=time.time() - elapsed)
    state = cast(InstigatorState, SimpleNamespace(instigator_data=started))
    return is_under_min_interval(state, cast(RemoteSensor, SimpleNamespace(min_interval_seconds=seconds)))


def test_nothing_moved() -> None:
    assert list(internals.changes()) == []


def test_says_what_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    gone, shaped = "dagster._daemon.sensor:nothing", "dagster._daemon.controller:create_daemon_of_type"
    monkeypatch.setattr(internals, "INTERNALS", {gone: None, shaped: ("daemon_type", "colour")})
    monkeypatch.setattr(internals, "TEXTS", [(shaped, "no such text")])
    assert list(internals.changes()) == [
        f"{gone} is gone",
        f"{shaped} no longer takes colour; now (daemon_type, instance)",
        f"{shaped} no longer contains `no such text`",
    ]


def test_pauses_grow_to_the_stock_loops() -> None:
    assert [pause(failures) for failures in (1, 2, 3, 4, 5, 10_000)] == [0.5, 1, 2, 4, 5, 5]


def test_a_negative_interval_has_always_passed() -> None:
    assert not under(CONTINUOUS, 0.0)
    assert under(1, 0.9)
    assert not under(1, 1.1)
    assert under(0, 29)  # why CONTINUOUS is not 0


WORKERS = [(path, wanted) for module in (launcher, warm_child, warm_jobs, worker) for path, wanted in module.INTERNALS]


@pytest.mark.parametrize(("path", "wanted"), WORKERS, ids=[path for path, _ in WORKERS])
def test_what_workers_and_launcher_use_is_where_it_was(path: str, wanted: tuple[str, ...]) -> None:
    found = pydoc.locate(path)
    assert found is not None, f"{path} has moved: runtime/ uses it"
    if wanted:
        gone = set(wanted) - set(inspect.signature(found).parameters)  # type: ignore[arg-type]
        assert not gone, f"{path} no longer takes {sorted(gone)}"
