"""`doctor`: looks at everything that has to be right, and says what to do about what is not."""

from __future__ import annotations

import os
from dataclasses import asdict

import typer
from rich.text import Text

from pipeline_platform.alerts.routes import load_routes
from pipeline_platform.cli.doctor_growth import check_growth
from pipeline_platform.cli.doctor_machine import check_machine
from pipeline_platform.cli.doctor_servers import check_servers
from pipeline_platform.cli.findings import Finding
from pipeline_platform.cli.options import AsJson, StateDir, connections, console, print_json
from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import SettingError
from pipeline_platform.local.connections import Connections
from pipeline_platform.local.state import LIVING, read_services
from pipeline_platform.settings import Settings

COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("doctor")(doctor)


def doctor(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """Check this machine, the servers, their durability, and that queue, ledger, facts and aggregates agree.

    A line a check: ok, warn or fail, and what to do. Exit code 1 when
    something fails.

    Example: pipeline-platform doctor
    """
    settings = Settings.load(state_dir=state_dir)
    found = examine(settings)
    if as_json:
        print_json({"ok": all(one.level != "fail" for one in found), "checks": [asdict(one) for one in found]})
    else:
        for one in found:
            line = Text.assemble((f"{one.level:>4}", COLOURS[one.level]), f"  {one.check}: {one.message}")
            console.print(line, soft_wrap=True)
    if any(one.level == "fail" for one in found):
        raise typer.Exit(1)


def examine(settings: Settings) -> list[Finding]:
    """All findings, in the order in which things depend on each other."""
    services = read_services(settings.state_dir)
    living = any(service.state in LIVING for service in services)
    found = check_machine(settings, services, running=living)
    where = _where(settings)
    if where is None:
        found.append(Finding("warn", "stack", f"there is none in {settings.state_dir} yet; run `pipeline-platform up`"))
        return found
    own_servers = bool(settings.database_url and settings.redis_url)
    if services and not living and not own_servers:
        found.append(
            Finding("warn", "stack", "it is stopped, so its servers were not checked; run `pipeline-platform up`")
        )
        return found
    found += check_routes(settings)
    return found + check_servers(settings, where, running=living) + check_growth(settings, where)


def check_routes(settings: Settings) -> list[Finding]:
    """Whether alerts would go in clear."""
    if settings.alerts_file is None:
        return []
    try:
        routes = load_routes(settings.alerts_file, load_specs(settings.streams_dir))
    except SettingError as error:
        return [Finding("fail", "alert routes", str(error))]
    clear = [route.name for route in routes if route.in_clear(os.environ)]
    if clear:
        advice = "the secret in the address and the alerts go in clear; use https://"
        return [Finding("warn", "alert routes", f"{', '.join(clear)}: http://, so {advice}")]
    return [Finding("ok", "alert routes", f"{len(routes)} in {settings.alerts_file}")]


def _where(settings: Settings) -> Connections | None:
    try:
        _, where = connections(settings.state_dir)
    except SettingError:
        return None
    return where
