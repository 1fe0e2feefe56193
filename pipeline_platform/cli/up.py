"""`up`: starts everything, shows where it is, and keeps it running."""

from __future__ import annotations

import re
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from pipeline_platform.access.links import MINUTES
from pipeline_platform.cli.options import StateDir, console
from pipeline_platform.errors import SettingError
from pipeline_platform.local.lock import hold
from pipeline_platform.local.processes import Step
from pipeline_platform.local.stack import Stack
from pipeline_platform.local.state import end_leftovers
from pipeline_platform.local.supervisor import Supervisor
from pipeline_platform.settings import Settings

_COLOUR_CODE = re.compile(r"\x1b\[[0-9;]*m")  # a service that thinks it has a terminal
COLOURS = ("cyan", "green", "magenta", "yellow", "blue", "bright_cyan", "bright_green", "bright_magenta")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("up")(up)


def up(
    state_dir: StateDir = None,
    demo: Annotated[bool, typer.Option("--demo", help="Feed a steady, realistic load into both streams.")] = False,
    port: Annotated[int | None, typer.Option(help="The gateway's port. (default: 8000)", show_default=False)] = None,
    dagster_port: Annotated[
        int | None, typer.Option(help="The Dagster UI's port. (default: 3000)", show_default=False)
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="The address to bind to. (default: 127.0.0.1)", show_default=False)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that execute runs. (default: 2)", show_default=False)
    ] = None,
    chaos: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Make this share of loads fail, to watch retries, assets and alerts work."),
    ] = None,
    chaos_seed: Annotated[int, typer.Option(help="The same seed makes the same loads fail.")] = 0,
) -> None:
    """Start the whole platform and keep it running until Ctrl-C.

    PostgreSQL and Valkey are embedded unless DATABASE_URL or REDIS_URL name servers of your own.

    Example: pipeline-platform up --demo --port 8080
    """
    settings = Settings.load(state_dir=state_dir, port=port, dagster_port=dagster_port, host=host, workers=workers)
    if chaos is not None:
        settings = _with_chaos(settings, chaos, chaos_seed)
    log = _Log()
    with hold(settings.state_dir) as folder:
        for name in end_leftovers(folder):
            log.emit("up", f"{name} was left from an `up` that was killed; ended it")
        stack = Stack(settings, folder, log.emit)
        began = time.monotonic()
        ready = Step("ready", lambda: _show(stack, folder, time.monotonic() - began, demo=demo))
        Supervisor(stack.plan(ready, demo=demo), log.emit, folder).run()


def _with_chaos(settings: Settings, chaos: float, seed: int) -> Settings:
    if settings.database_url or settings.redis_url:
        raise SettingError("--chaos is for the embedded servers; unset DATABASE_URL and REDIS_URL to play with it.")
    return settings.model_copy(update={"embedded": True, "chaos": chaos, "chaos_seed": seed})


class _Log:
    """One calm log: a line's service in front, a colour a service."""

    def __init__(self) -> None:
        self._colours: dict[str, str] = {}

    def emit(self, name: str, line: str) -> None:
        """Prints one line of a service."""
        colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
        # The console prints what else would steer the terminal as text.
        console.print(f"[{colour}]{name:>8}[/] [dim]|[/] {escape(_COLOUR_CODE.sub('', line))}", soft_wrap=True)


def _show(stack: Stack, folder: Path, seconds: float, *, demo: bool) -> None:
    """The table of where things are."""
    where, link = stack.connections, stack.login_link()
    rows = {
        "Gateway": where.gateway_url,
        "API docs": f"{where.gateway_url}/docs",
        "Dagster UI": link,
        "Warehouse (read-only)": where.warehouse_readonly_url,
        "API key": where.api_key,
        "State": str(folder),
    }
    console.print(f"\n[bold]Pipeline Platform is up ({seconds:.0f} s)[/]")
    for name, value in rows.items():  # not a box: a wrapped URL could not be copied
        console.print(f"  [bold]{name:<22}[/] {escape(value)}", soft_wrap=True)
    command = (
        "pipeline-platform" if shutil.which("pipeline-platform") else f"{Path(sys.executable).parent}/pipeline-platform"
    )
    lines = [f'{command} sql "select * from telemetry_1m order by window_start desc limit 5"']
    if demo:
        lines.insert(0, f"{command} status")
        said = "The demo sends events to both streams; some are negative, some invalid, some late. Look at it:"
        console.print(said, soft_wrap=True)
    else:
        lines.insert(0, f"""echo '{{"source":"me","metric":"temp","value":21.5}}' | {command} ingest telemetry -""")
        console.print("Try it:")
    for line in lines:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    if link != where.dagster_url:
        said = (
            f"The link to the Dagster UI logs you in once, within {MINUTES} minutes; `{command} login` makes another."
        )
        console.print(said, markup=False, soft_wrap=True)
    console.print("Ctrl-C stops everything; the data stays in the state folder.\n")
