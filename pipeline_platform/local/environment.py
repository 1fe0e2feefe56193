"""What a process of the platform has to know: its environment and its DAGSTER_HOME, on this machine or another."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import sqlalchemy as sa

from pipeline_platform.errors import SettingError
from pipeline_platform.local.connections import Connections
from pipeline_platform.settings import Settings

DAGSTER_FILES = ("dagster.yaml", "workspace.yaml")
# The queues of `up`'s two workers, the most urgent first in each.
INGEST_QUEUES, OTHER_QUEUES = ("ingest",), ("etl", "backfill")


def child_environment(settings: Settings, where: Connections, state_dir: Path, **more: str) -> dict[str, str]:
    """Our environment and where everything is: a child never has to guess."""
    storage = sa.make_url(where.dagster_database_url).set(drivername="postgresql+psycopg2")
    # A commit of Dagster's own event log may be lost in a power cut: the ledger is ours and is not.
    storage = storage.update_query_dict({"options": "-c synchronous_commit=off"})
    mine = {
        "DATABASE_URL": where.warehouse_url,
        "PIPELINE_LOADER_DATABASE_URL": where.warehouse_loader_url,
        "PIPELINE_READONLY_DATABASE_URL": where.warehouse_readonly_url,
        "REDIS_URL": where.redis_url,
        "PIPELINE_BROKER_URL": settings.model_copy(update={"redis_url": where.redis_url}).broker,
        "PIPELINE_STATE_DIR": str(state_dir),
        "PIPELINE_HOST": settings.host,
        "PIPELINE_PORT": str(settings.port),
        "PIPELINE_DAGSTER_URL": where.dagster_url,
        "PIPELINE_GATEWAY_URL": settings.gateway_url or where.gateway_url,
        "PIPELINE_DAGSTER_DATABASE_URL": where.dagster_database_url,
        "DAGSTER_HOME": str(state_dir / "dagster"),
        "DAGSTER_POSTGRES_URL": storage.render_as_string(hide_password=False),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "DAGSTER_EVENT_BATCH_SIZE": "500",  # a run of 366 partitions materializes each of them
        "MALLOC_ARENA_MAX": "2",  # many threads, little work each: 40 MB less over all processes, and no slower
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
    if settings.chaos:
        mine |= {"PIPELINE_EMBEDDED": "true", "PIPELINE_CHAOS": str(settings.chaos)}
        mine["PIPELINE_CHAOS_SEED"] = str(settings.chaos_seed)
    if settings.streams_dir:
        mine["PIPELINE_STREAMS_DIR"] = str(settings.streams_dir.resolve())
    if settings.alerts_file:
        mine["PIPELINE_ALERTS_FILE"] = str(settings.alerts_file.resolve())
    if settings.prices_file:
        mine["PIPELINE_PRICES_FILE"] = str(settings.prices_file.resolve())
    if where.demo_prices_url:
        mine["PIPELINE_DEMO_PRICES_URL"] = where.demo_prices_url
    return {**os.environ, **mine, **more}


def worker_arguments(children: int, name: str, queues: Sequence[str] = ()) -> list[str]:
    """What follows `python -m` to run a worker. `queues`: the most urgent first; none means all, in the app's order."""
    arguments = ["celery", "--quiet", "-A", "pipeline_platform.orchestration.celery_app", "worker"]
    arguments += ["--pool", "prefork", "--without-gossip", "--without-mingle", "--loglevel", "WARNING"]
    arguments += ["--concurrency", str(children), "--hostname", name]
    return [*arguments, "--queues", ",".join(queues)] if queues else arguments


def dagster_home(state_dir: Path, dagster_yaml: Path | None = None) -> Path:
    """DAGSTER_HOME with dagster.yaml (another, if given) and workspace.yaml: from the clone or where pip put them."""
    home = state_dir / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    clone = Path(__file__).resolve().parents[2]
    installed = Path(sys.prefix) / "share" / "pipeline_platform"
    source = next((place for place in (clone, installed) if (place / DAGSTER_FILES[0]).exists()), None)
    if source is None:
        raise SettingError("dagster.yaml is missing from the installation; install the package again.")
    for name in DAGSTER_FILES:
        shutil.copyfile(source / name, home / name)
    if dagster_yaml is not None:
        shutil.copyfile(dagster_yaml, home / DAGSTER_FILES[0])
    return home
