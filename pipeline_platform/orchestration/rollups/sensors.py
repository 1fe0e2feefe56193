"""Requests the rollup of every window that a load has marked: when it is over, and again when late events came.

A late event corrects its windows at once. Where they come all the time, a few corrections are made at once and then one
every `pause` seconds, so that a trickle of late events does not become a stream of runs.
"""

# No postponed annotations here: Dagster reads them at run time.

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import dagster as dg

from pipeline_platform.core.batches import Pace, PaceLimits, linger, spend
from pipeline_platform.core.rollups import Grain, Span, spans
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import TransientError
from pipeline_platform.orchestration.cursors import fields, kept
from pipeline_platform.orchestration.partition_ranges import range_tags
from pipeline_platform.orchestration.resources import Warehouse
from pipeline_platform.orchestration.rollups.assets import job_name, partitions_of
from pipeline_platform.orchestration.under_way import run_under_way
from pipeline_platform.warehouse.rollup_marks import marked

SETTLE = timedelta(seconds=5)  # after a window's end, for what is on its way
LONGEST = 24 * 31  # windows of one run
BURST = 3  # requests of one job without a pause
RUNS = 4  # requested at once; the others are still marked when these have ended


def rollup_sensor(specs: Sequence[StreamSpec], jobs: Sequence[Any], interval: int, pause: float) -> dg.SensorDefinition:
    """One sensor for all streams; `jobs` are all rollup jobs. It looks every `interval` seconds."""
    pace = PaceLimits(idle=0.0, per_second=1.0 / max(pause, 0.001), burst=BURST)
    by_name = {spec.name: spec for spec in specs}

    @dg.sensor(
        name="rollup_sensor",
        jobs=list(jobs),
        minimum_interval_seconds=interval,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Requests the hours and days that loads have marked, neighbours together.",
    )
    def rollup(context: dg.SensorEvaluationContext, warehouse: Warehouse) -> dg.SensorResult | dg.SkipReason:
        now = datetime.now(UTC)
        requests: list[dg.RunRequest] = []
        paces: dict[str, Pace] = kept(context, paces_of, {})
        waiting = 0
        try:
            for grain in Grain:
                marks = marked(warehouse.engine, grain, grain.complete(now - SETTLE))
                for stream, ours in groupby(marks, key=lambda mark: mark.stream):
                    # What a run that is under way does not roll up is still marked when it has ended.
                    if stream not in by_name or run_under_way(context.instance, job_name(stream, grain)):
                        continue
                    known = partitions_of(by_name[stream], grain, now)
                    marks_known = [mark for mark in ours if mark.window_start >= known.start]
                    job, starts = job_name(stream, grain), [mark.window_start for mark in marks_known]
                    noted = paces.get(job, Pace(BURST, now.timestamp()))
                    if all(mark.late for mark in marks_known) and linger(noted, now.timestamp(), pace):
                        waiting += len(starts)
                        continue
                    paces[job] = spend(noted, now.timestamp(), 1, pace)
                    requests += [
                        _request(by_name[stream], grain, span, known, now)
                        for span in spans(starts, grain, longest=LONGEST)[:RUNS]
                    ]
        except TransientError as error:
            return dg.SkipReason(f"{error} What is marked stays marked.")
        if waiting and not requests:
            return dg.SkipReason(f"{waiting} windows wait to be corrected again: one run every {pause:g} s is enough.")
        if not requests:
            return dg.SkipReason("No window that is over has been marked since it was rolled up.")
        return dg.SensorResult(run_requests=requests, cursor=cursor_of(paces))

    return rollup


def paces_of(cursor: str) -> dict[str, Pace]:
    """By job, the pace that an earlier tick left in the cursor."""
    return {job: Pace.read(noted) for job, noted in fields(cursor).items()}


def cursor_of(paces: Mapping[str, Pace]) -> str:
    """The cursor: losing it costs a few runs too many, and nothing else."""
    return json.dumps({job: pace.noted() for job, pace in paces.items()})


def _request(
    spec: StreamSpec, grain: Grain, span: Span, known: dg.TimeWindowPartitionsDefinition, now: datetime
) -> dg.RunRequest:
    first = known.get_partition_key_for_timestamp(span.start.timestamp())
    last = known.get_partition_key_for_timestamp((span.end - grain.width).timestamp())
    return dg.RunRequest(
        job_name=job_name(spec.name, grain),
        run_key=f"{spec.name}-{grain.value}-{first}-{last}-{now.timestamp():.3f}",
        tags=range_tags(first, last),
    )
