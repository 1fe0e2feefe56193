"""The Celery app of benchmarks/trivial.py's worker: the runtime as another Dagster project would use it."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline_platform.orchestration.runtime.worker import build_worker_app

app = build_worker_app(
    os.environ["PIPELINE_BROKER_URL"],
    queues=("etl",),  # dagster.yaml's default queue
    preload=("dagster_postgres",),
    locations=("benchmarks.trivial_jobs:defs",),
    ready_file=Path(os.environ["TRIVIAL_READY"]),
)
