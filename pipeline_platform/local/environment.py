"""What a process of the platform has to know: its environment and its DAGSTER_HOME, on this machine or another."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import sqlalchemy as sa

from pipeline_platform.errors import SettingError
from pipeline_platform.local.connections import Connections
from pipeline_platform.settings import Settings

DAGSTER_FILES = ("dagster.yaml", "workspace.yaml")
# The queues of `up`'s two workers, the most urgent first in each.
INGEST_QUEUES, OTHER_QUEUES = ("ingest",), ("etl", "backfill")


# What each service is told of logins, and nothing else: a variable here is never inherited, whoever has set it.
# Dagster's webserver launches runs, so it writes tasks; users and the audit are rows that it reads and writes.
_RUNS = ("DATABASE_URL", "PIPELINE_LOADER_DATABASE_URL", "REDIS_URL", "PIPELINE_BROKER_URL", "DAGSTER_POSTGRES_URL")
NEEDS: Mapping[str, tuple[str, ...]] = {
    "gateway": (
        "PIPELINE_READONLY_DATABASE_URL", "PIPELINE_LOADER_DATABASE_URL", "PIPELINE_DAGSTER_DATABASE_URL", "REDIS_URL",
    ),
    "code": _RUNS,
    "worker": _RUNS,
    "etl": _RUNS,
    "daemon": ("PIPELINE_BROKER_URL", "DAGSTER_POSTGRES_URL"),
    "dagster": ("PIPELINE_LOADER_DATABASE_URL", "REDIS_URL", "PIPELINE_BROKER_URL", "DAGSTER_POSTGRES_URL"),
    "prices": (),
    "demo": ("PIPELINE_API_KEY",),
}  # fmt: skip
LOGINS = frozenset(name for names in NEEDS.values() for name in names) | {
    "PIPELINE_DATABASE_URL", "PIPELINE_REDIS_URL", "PIPELINE_ANALYST_DATABASE_URL", "PGPASSWORD", "PGPASSFILE",
}  # fmt: skip
# Secrets that the operator may set, and who is told: everybody else's environment is without them.
SECRETS: Mapping[str, frozenset[str]] = {
    "PIPELINE_CODE_TOKEN": frozenset({"code", "daemon", "dagster"}),
    "PIPELINE_PROXY_SECRET": frozenset({"gateway", "dagster"}),
    "PIPELINE_OIDC_CLIENT_SECRET": frozenset({"gateway", "dagster"}),
}
# These execute the operator's own files of sources and routes, which name variables with keys of other sites: they
# inherit whatever there is. The others inherit what a program needs to run, and the platform's settings.
_INHERITING = frozenset({"code", "worker", "etl"})
_PLAIN = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_\w+|TZ|TERM|TMPDIR|VIRTUAL_ENV|LD_LIBRARY_PATH|PYTHON\w+"
    r"|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|(?i:(http|https|no|all)_proxy)|PIPELINE_\w+|DAGSTER_\w+"
)
EDGE = frozenset({"gateway", "prices", "demo"})  # these face the network, or are nothing to the others
_QUEUE_USER = {"gateway": "gateway", "worker": "workers", "etl": "workers", "dagster": "web"}


def child_environment(
    service: str, settings: Settings, where: Connections, state_dir: Path, **more: str
) -> dict[str, str]:
    """What a service has to know of our environment, and where everything is: a child never has to guess."""
    logins = _logins(service, settings, where)
    ours = {
        "PIPELINE_STATE_DIR": str(state_dir),
        "PIPELINE_HOST": settings.host,
        "PIPELINE_PORT": str(settings.port),
        "PIPELINE_DAGSTER_URL": where.dagster_url,
        "PIPELINE_GATEWAY_URL": settings.gateway_url or where.gateway_url,
        "DAGSTER_HOME": str(state_dir / "dagster"),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "DAGSTER_EVENT_BATCH_SIZE": "500",  # a run of 366 partitions materializes each of them
        "MALLOC_ARENA_MAX": "2",  # many threads, little work each: 40 MB less over all processes, and no slower
        "PYTHONUNBUFFERED": "1",
        "PYTHONWARNINGS": "ignore",
    }
    if settings.chaos and service in _INHERITING:
        ours |= {"PIPELINE_EMBEDDED": "true", "PIPELINE_CHAOS": str(settings.chaos)}
        ours["PIPELINE_CHAOS_SEED"] = str(settings.chaos_seed)
    for name, path in (
        ("PIPELINE_STREAMS_DIR", settings.streams_dir),
        ("PIPELINE_ALERTS_FILE", settings.alerts_file),
        ("PIPELINE_PRICES_FILE", settings.prices_file),
    ):
        if path:
            ours[name] = str(path.resolve())
    if where.demo_prices_url:
        ours["PIPELINE_DEMO_PRICES_URL"] = where.demo_prices_url
    needed = {name: logins[name] for name in NEEDS[service]}
    return _inherited(service, os.environ) | ours | needed | more


def _inherited(service: str, environ: Mapping[str, str]) -> dict[str, str]:
    everything = service in _INHERITING
    hidden = LOGINS | {name for name, told in SECRETS.items() if service not in told}
    return {
        name: value for name, value in environ.items() if name not in hidden and (everything or _PLAIN.fullmatch(name))
    }


def _logins(service: str, settings: Settings, where: Connections) -> dict[str, str]:
    """Every login's variable, as this service would have it."""
    storage = sa.make_url(where.dagster_database_url).set(drivername="postgresql+psycopg2")
    # A commit of Dagster's own event log may be lost in a power cut: the ledger is ours and is not.
    storage = storage.update_query_dict({"options": "-c synchronous_commit=off"})
    queue = where.queue_url(_QUEUE_USER.get(service, "daemon"))
    return {
        "DATABASE_URL": where.warehouse_url,
        "PIPELINE_LOADER_DATABASE_URL": where.warehouse_loader_url,
        "PIPELINE_READONLY_DATABASE_URL": where.warehouse_reader_url or where.warehouse_readonly_url,
        "PIPELINE_DAGSTER_DATABASE_URL": where.dagster_reader_url or where.dagster_database_url,
        "DAGSTER_POSTGRES_URL": storage.render_as_string(hide_password=False),
        "REDIS_URL": queue,
        "PIPELINE_BROKER_URL": settings.model_copy(update={"redis_url": queue}).broker,
        "PIPELINE_API_KEY": where.api_key,
    }


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
    home.chmod(0o755 if os.geteuid() == 0 else 0o700)  # read by the services' account, written by us alone
    clone = Path(__file__).resolve().parents[2]
    installed = Path(sys.prefix) / "share" / "pipeline_platform"
    source = next((place for place in (clone, installed) if (place / DAGSTER_FILES[0]).exists()), None)
    if source is None:
        raise SettingError("dagster.yaml is missing from the installation; install the package again.")
    for name in DAGSTER_FILES:
        shutil.copyfile(source / name, home / name)
    if dagster_yaml is not None:
        shutil.copyfile(dagster_yaml, home / DAGSTER_FILES[0])
    for name in DAGSTER_FILES:
        (home / name).chmod(0o644)
    return home
