"""Purges runs with their events by age and state: Dagster itself purges only ticks, and would keep runs for ever."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

import dagster as dg

STEP = 100  # runs looked up at a time


def purge_runs(
    instance: dg.DagsterInstance,
    keep: Mapping[dg.DagsterRunStatus, timedelta],
    now: datetime,
    *,
    limit: int = 5_000,
    seconds: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, int]:
    """Deletes finished runs older than `keep` says for their status, oldest first; returns how many by status.

    Stops after `limit` runs or `seconds`: what is left is for the next time. Runs that are not finished are never
    touched, whatever `keep` says.
    """
    purged: dict[str, int] = {}
    until = clock() + seconds
    for status, age in keep.items():
        if status not in FINISHED:
            raise ValueError(f"{status.value} is not a finished run's status; only finished runs are purged.")
        older = dg.RunsFilter(statuses=[status], created_before=now - age)
        while sum(purged.values()) < limit and clock() < until:
            runs = instance.get_run_records(older, limit=STEP, ascending=True)
            if not runs:
                break
            for record in runs:
                instance.delete_run(record.dagster_run.run_id)
            purged[status.value] = purged.get(status.value, 0) + len(runs)
    return purged


FINISHED = frozenset({dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED})
