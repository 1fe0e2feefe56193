"""`worker`: executes runs on this machine for a stack that runs here or elsewhere."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import typer

from pipeline_platform.cli.options import StateDir, connections
from pipeline_platform.local.environment import child_environment, dagster_home, worker_arguments
from pipeline_platform.local.lock import open_state_dir


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("worker")(worker)


def worker(
    state_dir: StateDir = None,
    workers: Annotated[
        int | None, typer.Option("--workers", help="Processes that execute runs. (default: 2)", show_default=False)
    ] = None,
    queue: Annotated[
        list[str] | None, typer.Option("--queue", help="A queue to take runs from, the most urgent first; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="The worker's name, unique among all.")] = None,
) -> None:
    """Run one more worker against the same servers, on this machine or another, until Ctrl-C.

    On another machine set DATABASE_URL, REDIS_URL and PIPELINE_DAGSTER_DATABASE_URL, and install the same version
    with the same stream files. Without --queue it takes from all queues, ingest before etl before backfill.

    Example: pipeline-platform worker --workers 4 --queue ingest
    """
    settings, where = connections(state_dir)
    folder = open_state_dir(settings.state_dir)
    home = dagster_home(folder, settings.dagster_yaml)
    unique = f"{name or f'worker-{os.getpid()}'}@{socket.gethostname()}"
    argv = [sys.executable, "-m", *worker_arguments(workers or settings.workers, unique, queue or ())]
    os.chdir(home)
    os.execvpe(argv[0], argv, child_environment("worker", settings, where, folder))
