"""Options and output that several commands share."""

from __future__ import annotations

import json
import re
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline_platform.cli.terminal import SafeConsole
from pipeline_platform.errors import SettingError
from pipeline_platform.local.connections import Connections, find_connections
from pipeline_platform.settings import Settings

StateDir = Annotated[
    Path | None,
    typer.Option("--state-dir", help="Where `up` keeps everything. (default: .pipeline)", show_default=False),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]

console = SafeConsole()
DAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")


def key_option(scope: str = "") -> Any:
    """`--key`: another API key than the stack's; `scope` is what it has to have."""
    needed = f", with the scope {scope}" if scope else ""
    said = f"Another API key{needed}. Others see it in the list of processes, and PIPELINE_API_KEY not."
    return typer.Option("--key", help=said, show_default=False)


def connections(state_dir: Path | None) -> tuple[Settings, Connections]:
    """The settings and where the stack is."""
    settings = Settings.load(state_dir=state_dir)
    return settings, find_connections(settings)


def day(text: str, option: str) -> date:
    """A day as people write it to every command: YYYY-MM-DD and nothing else, in the digits 0 to 9."""
    if not DAY.fullmatch(text):
        raise SettingError(f"{option} is a day such as 2026-01-31, not {text[:40]!r}.")
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise SettingError(f"{option} {text}: there is no such day.") from None


def print_json(value: Any) -> None:
    """`value` as indented JSON on standard output; times and ids as text."""
    typer.echo(json.dumps(value, indent=2, default=str))
