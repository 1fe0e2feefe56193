"""`migrate`: brings the warehouse in line with the code and the stream files."""

from __future__ import annotations

import typer

from pipeline_platform.cli.options import StateDir, connections, console
from pipeline_platform.core.streams import load_specs
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.migrate import head_revision
from pipeline_platform.warehouse.migrate import migrate as bring_in_line


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("migrate")(migrate)


def migrate(state_dir: StateDir = None) -> None:
    """Bring the warehouse's tables in line with the code and the stream files.

    Adds streams, dimensions and measures; refuses, before anything is changed, what would lose data. `up` does this
    too. Restart a running stack afterwards so that Dagster and the gateway see the change.

    Example: pipeline-platform migrate
    """
    settings, where = connections(state_dir)
    specs = load_specs(settings.streams_dir)
    said: list[str] = []
    engine = connect(where.warehouse_url)
    try:
        bring_in_line(engine, specs.values(), say=said.append)
    finally:
        engine.dispose()
    for line in said:
        console.print(line, markup=False)
    console.print(f"The warehouse is at {head_revision()} with {len(specs)} streams.", markup=False)
