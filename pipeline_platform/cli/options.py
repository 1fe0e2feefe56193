"""Options and output that several commands share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline_platform.cli.terminal import SafeConsole
from pipeline_platform.local.connections import Connections, find_connections
from pipeline_platform.settings import Settings

StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", help="Where `up` keeps everything. (default: .pipeline)", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]

console = SafeConsole()


def key_option(scope: str = "") -> Any:
    """`--key`: another API key than the stack's; `scope` is what it has to have."""
    needed = f", with the scope {scope}" if scope else ""
    said = f"Another API key{needed}. Others see it in the list of processes, and PIPELINE_API_KEY not."
    return typer.Option("--key", help=said, show_default=False)


def connections(state_dir: Path | None) -> tuple[Settings, Connections]:
    """The settings and where the stack is."""
    settings = Settings.load(state_dir=state_dir)
    return settings, find_connections(settings)


def print_json(value: Any) -> None:
    """`value` as indented JSON on standard output; times and ids as text."""
    typer.echo(json.dumps(value, indent=2, default=str))
