"""`pipeline-platform`: the command line. A user's mistake is one sentence and exit code 1, never a traceback."""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from pipeline_platform.cli import (
    alerts,
    assets,
    backfill,
    doctor,
    ingest,
    job,
    keys,
    letter_changes,
    migrate,
    sql,
    status,
    streams,
    up,
    worker,
)
from pipeline_platform.errors import PlatformError

app = typer.Typer(
    name="pipeline-platform",
    help="POST events, see them loaded exactly once into PostgreSQL through Dagster.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    up,
    worker,
    status,
    ingest,
    streams,
    job,
    assets,
    letter_changes,
    alerts,
    backfill,
    sql,
    migrate,
    doctor,
    keys,
):
    command.register(app)


def main() -> None:
    """The console script."""
    try:
        app()
    except PlatformError as error:
        stderr = Console(stderr=True, highlight=False)
        stderr.print(f"pipeline-platform: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
