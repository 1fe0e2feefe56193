"""`alerts`: what somebody should know, who was told, and whether telling works."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import sqlalchemy as sa
import typer
from rich.table import Table
from rich.text import Text

from pipeline_platform.alerts.deliver import deliver, trial
from pipeline_platform.alerts.routes import Route, load_routes
from pipeline_platform.alerts.webhook import Webhook
from pipeline_platform.cli.options import AsJson, StateDir, connections, console, print_json
from pipeline_platform.cli.terminal import SafeConsole
from pipeline_platform.core.alerts import Sent
from pipeline_platform.core.names import no_stream
from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import PermanentError, SettingError
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.alert_views import AlertQuery, Delivery, ListedAlert, list_alerts
from pipeline_platform.warehouse.alerts import resolve_alert
from pipeline_platform.warehouse.engine import connect, warehouse_errors
from pipeline_platform.warehouse.stream_changes import was_declared

COLOURS = {"critical": "bold red", "warning": "yellow", "info": "cyan"}
group = typer.Typer(
    help="Look at alerts and try their routes.  Example: pipeline-platform alerts list", no_args_is_help=True
)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(group, name="alerts")


@group.command("list")
def list_(
    state_dir: StateDir = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    stream: Annotated[str | None, typer.Option(help="Only those of one stream.", show_default=False)] = None,
    severity: Annotated[
        str | None, typer.Option(help="Only info, warning or critical ones.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the open alerts, the newest first, with what became of their messages.

    Example: pipeline-platform alerts list --all --severity critical
    """
    with _warehouse(state_dir, write=False) as engine:
        specs = load_specs(Settings.load(state_dir=state_dir).streams_dir)
        if stream is not None and stream not in specs and not was_declared(engine, stream):
            raise SettingError(no_stream(stream, specs))
        found = list_alerts(engine, AlertQuery(not everything, stream, severity, limit=limit))
    if as_json:
        print_json([asdict(alert) for alert in found])
        return
    if not found:
        console.print("No alerts." if everything else "No open alerts.")
        return
    table = Table("id", "severity", "kind", "since", "times", "what", "told")
    for alert in found:
        table.add_row(*_cells(alert))
    console.print(table)


@group.command("resolve")
def resolve(
    alert_id: Annotated[int, typer.Argument(min=1, help="The alert's id, as `alerts list` shows it.")],
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Close an alert that somebody has dealt with; it opens anew when its cause comes back.

    Most alerts close by themselves. One that tells of something past, such as a
    batch that was given up, stays open until it is closed or purged.

    Example: pipeline-platform alerts resolve 12
    """
    with _warehouse(state_dir, write=True) as engine, warehouse_errors(), engine.begin() as connection:
        query = sa.text("select key from alerts where id = :id and resolved_at is null")
        key = connection.scalar(query, {"id": alert_id})
        if key is None or not resolve_alert(connection, key):
            raise PermanentError(
                f"There is no open alert {alert_id}; `pipeline-platform alerts list` shows those there are."
            )
    if as_json:
        print_json({"id": alert_id, "resolved": True})
    else:
        console.print(f"The alert {alert_id} is closed.")


@group.command("test")
def try_routes(
    state_dir: StateDir = None,
    route: Annotated[str | None, typer.Option(help="Only this route.", show_default=False)] = None,
    file: Annotated[
        Path | None, typer.Option(help="Another file of routes than PIPELINE_ALERTS_FILE.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Send a test message to every route, as a real alert would go, and say what the receivers answered.

    Exit code 1 when one of them did not take it.

    Example: pipeline-platform alerts test --route team
    """
    settings = Settings.load(state_dir=state_dir)
    routes = _routes(settings, file, route)
    for each in routes:
        if each.in_clear(os.environ):
            warning = f"{each.name} goes to an http:// address: its secret and its alerts go in clear; use https://."
            SafeConsole(stderr=True).print(warning, style="yellow", markup=False, soft_wrap=True)
    webhook, now = Webhook(allow_private=settings.alerts_allow_private), datetime.now(UTC)
    rows = []
    for each in routes:
        outcome = deliver(each, [trial(now)], webhook, os.environ, now)
        said = outcome.said if isinstance(outcome, Sent) else outcome.why
        rows.append(
            {"route": each.name, "format": each.format, "outcome": type(outcome).__name__.lower(), "said": said}
        )
    if as_json:
        print_json(rows)
    else:
        for row in rows:
            colour = "green" if row["outcome"] == "sent" else "red"
            words = Text.assemble(f"{row['route']}: ", (row["outcome"], colour), f". {row['said']}")
            console.print(words, soft_wrap=True)
    if any(row["outcome"] != "sent" for row in rows):
        raise typer.Exit(1)


def _routes(settings: Settings, file: Path | None, name: str | None) -> list[Route]:
    path = file or settings.alerts_file
    if path is None:
        raise SettingError("There are no routes: set PIPELINE_ALERTS_FILE, or pass --file. docs/alerts.md shows one.")
    routes = load_routes(path, load_specs(settings.streams_dir))
    chosen = [route for route in routes if name in (None, route.name)]
    if not chosen:
        there = ", ".join(route.name for route in routes) or "none"
        raise SettingError(f"{path} has no such route; there are: {there}.")
    return chosen


@contextmanager
def _warehouse(state_dir: Path | None, *, write: bool) -> Iterator[sa.Engine]:
    _, where = connections(state_dir)
    engine = connect(where.warehouse_loader_url if write else where.warehouse_readonly_url, pool_size=1)
    try:
        yield engine
    finally:
        engine.dispose()


def _cells(alert: ListedAlert) -> list[Text]:
    end = f" to {alert.resolved_at:%m-%d %H:%M}" if alert.resolved_at else ""
    told = "\n".join(map(_told, alert.deliveries)) or "nobody"
    return [
        Text(str(alert.id)),
        Text(alert.severity, style=COLOURS[alert.severity]),
        Text(alert.kind),
        Text(f"{alert.raised_at:%m-%d %H:%M}{end}"),
        Text(f"{alert.times:,}"),
        Text(f"{alert.title}\n{alert.body}", overflow="fold"),
        Text(told, overflow="fold"),
    ]


def _told(delivery: Delivery) -> str:
    what = delivery.route if delivery.phase == "raised" else f"{delivery.route} (end)"
    if delivery.error and delivery.state != "sent":
        return f"{what}: {delivery.state}, {delivery.error}"
    return f"{what}: {delivery.state}"
