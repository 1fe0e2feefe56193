"""What Dagster loads: lists only. A stream's definitions all come from its spec."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg

from pipeline_platform.core.streams import load_specs
from pipeline_platform.orchestration.alerts.jobs import deliver_job
from pipeline_platform.orchestration.alerts.sensors import alerts_sensor
from pipeline_platform.orchestration.failures.obsolete import obsolete_sensor
from pipeline_platform.orchestration.failures.sensors import failed_runs_sensor
from pipeline_platform.orchestration.ingest.assets import ingest_assets, ingest_job, queue_asset
from pipeline_platform.orchestration.ingest.checks import check_job, check_schedule, stream_checks
from pipeline_platform.orchestration.ingest.sensors import ingest_sensor
from pipeline_platform.orchestration.maintenance.history import history_job, history_schedule
from pipeline_platform.orchestration.maintenance.jobs import maintenance_job, maintenance_schedule
from pipeline_platform.orchestration.prices.definitions import price_definitions, price_sources
from pipeline_platform.orchestration.prices.partitions import canonicals
from pipeline_platform.orchestration.prices.planned import idle_assets
from pipeline_platform.orchestration.prices.schedules import PRICE_JOBS
from pipeline_platform.orchestration.replay.jobs import replay_job_of
from pipeline_platform.orchestration.replay.sensors import replay_sensor
from pipeline_platform.orchestration.resources import (
    build_resources,
    fixed,
    history_limits,
    letter_retention,
    plan_limits,
    take_once,
)
from pipeline_platform.orchestration.rollups.definitions import rollup_definitions, rollup_jobs
from pipeline_platform.settings import Settings


@dg.definitions
def definitions() -> dg.Definitions:
    """The code location of a deployment."""
    settings = Settings.load()
    specs = list(load_specs(settings.streams_dir).values())
    limits = plan_limits(settings)
    maintain = maintenance_job(
        specs,
        settings.keep_alerts_days,
        letter_retention(settings),
        settings.keep_quotes_days,
        settings.keep_batches_days,
        settings.keep_audit_days,
    )
    replays = [replay_job_of(spec, limits.max_run_seconds) for spec in specs]
    purge = history_job(history_limits(settings))
    others = [check_job(specs), maintain, purge, deliver_job()]
    rollups = rollup_definitions(specs, settings.rollup_interval, settings.rollup_pause, datetime.now(UTC))
    prices, plan = price_definitions(settings), price_sources(settings).plan
    etl_jobs = [*others, *(rollups.jobs or ()), *(prices.jobs or ())]
    job_of_asset = {"/".join(key.path): name for key, name in (PRICE_JOBS | rollup_jobs(specs)).items()}
    resources = {name: fixed(value) for name, value in build_resources(settings).items()}
    ours = dg.Definitions(
        assets=[*map(queue_asset, specs), *map(ingest_assets, specs)],
        asset_checks=[check for spec in specs for check in stream_checks(spec)],
        jobs=[
            *(ingest_job(spec, limits.max_run_seconds) for spec in specs),
            *replays,
            *others,
        ],
        sensors=[
            *(ingest_sensor(spec, limits) for spec in specs),
            replay_sensor(replays, etl_jobs, job_of_asset, limits),
            *(alerts_sensor(), failed_runs_sensor(), obsolete_sensor(canonicals(plan), idle_assets(plan))),
        ],
        schedules=[check_schedule(), maintenance_schedule(maintain), history_schedule(purge)],
        resources={**resources, "io_manager": take_once},
        executor=dg.in_process_executor,
    )
    return dg.Definitions.merge(ours, rollups, prices)
