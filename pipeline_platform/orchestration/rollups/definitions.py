"""All definitions of the rollups."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

from pipeline_platform.core.rollups import Grain
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.orchestration.rollups.assets import job_name, rollup_assets, rollup_job, rollup_key
from pipeline_platform.orchestration.rollups.checks import rollup_checks
from pipeline_platform.orchestration.rollups.schedules import rollup_schedule
from pipeline_platform.orchestration.rollups.sensors import rollup_sensor


def rollup_jobs(specs: Sequence[StreamSpec]) -> dict[dg.AssetKey, str]:
    """The name of the job of each rollup."""
    return {rollup_key(spec.name, grain): job_name(spec.name, grain) for spec in specs for grain in Grain}


def rollup_definitions(specs: Sequence[StreamSpec], interval: int, pause: float, now: datetime) -> dg.Definitions:
    """Assets, jobs, schedules, checks and the sensor, with its `interval` and `pause` in seconds."""
    jobs = {(spec.name, grain): rollup_job(spec, grain) for spec in specs for grain in Grain}
    return dg.Definitions(
        assets=[asset for spec in specs for asset in rollup_assets(spec, now)],
        asset_checks=[check for spec in specs for check in rollup_checks(spec)],
        jobs=list(jobs.values()),
        schedules=[rollup_schedule(job, grain) for (_, grain), job in jobs.items()],
        sensors=[rollup_sensor(specs, list(jobs.values()), interval, pause)],
    )
