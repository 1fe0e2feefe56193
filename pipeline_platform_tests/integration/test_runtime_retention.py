"""Runs are purged by age and state, and nothing else is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from pipeline_platform.orchestration.runtime.retention import purge_runs

SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE


@dg.job
def some_job() -> None:
    """Nothing to do."""


def _run(instance: dg.DagsterInstance, status: dg.DagsterRunStatus) -> str:
    return instance.create_run_for_job(some_job, status=status).run_id


def test_old_finished_runs_go_and_all_others_stay() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        gone = [_run(instance, SUCCESS) for _ in range(3)]
        kept = [_run(instance, FAILURE), _run(instance, dg.DagsterRunStatus.STARTED)]
        later = datetime.now(UTC) + timedelta(hours=2)
        keep = {SUCCESS: timedelta(hours=1), FAILURE: timedelta(days=1)}
        assert purge_runs(instance, keep, later) == {"SUCCESS": 3}
        assert all(instance.get_run_by_id(run) is None for run in gone)
        assert all(instance.get_run_by_id(run) is not None for run in kept)


def test_young_runs_stay() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = _run(instance, SUCCESS)
        assert purge_runs(instance, {SUCCESS: timedelta(hours=1)}, datetime.now(UTC)) == {}
        assert instance.get_run_by_id(run) is not None


def test_time_bounds_a_purge() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = _run(instance, SUCCESS)
        later = datetime.now(UTC) + timedelta(hours=2)
        assert purge_runs(instance, {SUCCESS: timedelta(hours=1)}, later, seconds=0) == {}
        assert instance.get_run_by_id(run) is not None


def test_runs_that_are_not_finished_cannot_be_named() -> None:
    with dg.DagsterInstance.ephemeral() as instance, pytest.raises(ValueError, match="only finished runs"):
        purge_runs(instance, {dg.DagsterRunStatus.STARTED: timedelta()}, datetime.now(UTC))
