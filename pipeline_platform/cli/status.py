"""`status`: where everything is and how it does."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import requests
import sqlalchemy as sa
import typer
from rich.table import Table

from pipeline_platform.cli.alerts import COLOURS
from pipeline_platform.cli.options import AsJson, StateDir, connections, console, print_json
from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import PlatformError, SettingError
from pipeline_platform.local.connections import Connections
from pipeline_platform.local.lock import holder
from pipeline_platform.local.state import read_services
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.keys import token_id
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.queue.workers import WorkerBoard
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.alert_views import AlertQuery, list_alerts, open_counts
from pipeline_platform.warehouse.engine import connect as connect_warehouse
from pipeline_platform.warehouse.ledger import Ledger

ALERTS = 5  # the newest open ones are shown
HIDDEN = "***"
SECRET = (  # logins of processes, which are shown nowhere
    "warehouse_loader_url", "warehouse_reader_url", "dagster_database_url", "dagster_reader_url", "redis_users",
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("status")(status)


def status(
    state_dir: StateDir = None,
    as_json: AsJson = False,
    field: Annotated[
        str | None,
        typer.Option(help="Print one field alone and whole, such as api_key or gateway_url.", show_default=False),
    ] = None,
    secrets: Annotated[bool, typer.Option("--secrets", help="Show the API key and passwords, too.")] = False,
) -> None:
    """Show where things are, the health of each service, the workers, and each stream's backlog and watermark.

    The API key and passwords in URLs are left out: terminals are looked over, and output of scripts is kept.
    Exit code 0 when all services are ready, 3 otherwise.

    Example: pipeline-platform status --json

    Example: pipeline-platform status --field api_key
    """
    settings, where = connections(state_dir)
    if field is not None:
        places = _places(where)
        if field not in places:
            raise SettingError(f"There is no field {field!r}; there are {', '.join(places)}.")
        typer.echo(places[field])
        return
    report = _report(settings, where, secrets=secrets)
    if as_json:
        print_json(report)
    else:
        _print(report)
    if not report["healthy"]:
        raise typer.Exit(3)


def _report(settings: Settings, where: Connections, *, secrets: bool) -> dict[str, Any]:
    services = [
        {"name": service.name, "pid": service.pid, "state": service.state, "restarts": service.restarts}
        for service in read_services(settings.state_dir)
    ]
    ready = _gateway_ready(where)
    places = _places(where)
    return {
        **(places if secrets else {name: _without_secret(value) for name, value in places.items()}),
        "state_dir": str(settings.state_dir.resolve()),
        "up_pid": holder(settings.state_dir),
        "healthy": ready and all(service["state"] == "ready" for service in services),
        "gateway_ready": ready,
        "services": services,
        "workers": _workers(where),
        "streams": _streams(settings, where),
        "alerts": _alerts(where),
    }


def _places(where: Connections) -> dict[str, str]:
    return {name: str(value) for name, value in asdict(where).items() if name not in SECRET}


def _without_secret(place: str) -> str:
    """A URL without its password, a key without what is secret in it: its id is what `keys list` shows."""
    if "://" not in place:
        return f"pp_{token_id(place) or ''}_{HIDDEN}" if place else ""
    try:
        url = sa.make_url(place)
    except (sa.exc.ArgumentError, ValueError):
        return HIDDEN
    secret = {name: HIDDEN for name in url.query if "password" in name}
    return url.update_query_dict(secret).render_as_string(hide_password=True)


def _gateway_ready(where: Connections) -> bool:
    try:
        return requests.get(f"{where.gateway_url}/readyz", timeout=5).status_code == 200
    except requests.RequestException:
        return False


def _alerts(where: Connections) -> dict[str, Any]:
    """How many alerts are open by severity, and the newest of them."""
    engine = connect_warehouse(where.warehouse_readonly_url, pool_size=1)
    try:
        newest = list_alerts(engine, AlertQuery(limit=ALERTS))
        fields = ("id", "severity", "kind", "stream", "title", "times", "raised_at", "last_raised_at")
        return {
            "open": open_counts(engine),
            "newest": [{name: getattr(alert, name) for name in fields} for alert in newest],
        }
    except PlatformError as error:
        return {"open": {}, "newest": [], "error": str(error)}
    finally:
        engine.dispose()


def _workers(where: Connections) -> dict[str, Any]:
    """The workers on all machines."""
    client = connect_queue(where.redis_url, timeout=5.0)
    try:
        return asdict(WorkerBoard(client).read())
    except PlatformError as error:
        return {"error": str(error)}
    finally:
        client.close()


def _streams(settings: Settings, where: Connections) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    engine = connect_warehouse(where.warehouse_readonly_url, pool_size=1)
    client = connect_queue(where.redis_url, timeout=5.0)
    ledger, queue = Ledger(engine), RedisStreams(client)
    try:
        for name in load_specs(settings.streams_dir):
            row: dict[str, Any] = {"name": name}
            try:
                position = queue.position(name)
                row |= {
                    "accepted": position.accepted_events,
                    "backlog": position.events,
                    "last_id": str(position.last_id),
                }
                totals = ledger.totals(name)
                row |= {
                    "watermark": str(ledger.watermark(name)),
                    "unsettled_batches": len(ledger.unsettled(name)),
                    "loaded": totals.events_loaded,
                    "negative": totals.events_negative,
                    "rejected": totals.events_rejected,
                    "last_loaded_at": totals.last_loaded_at,
                }
            except PlatformError as error:
                row["error"] = str(error)
            rows.append(row)
    finally:
        client.close()
        engine.dispose()
    return rows


def _print(report: dict[str, Any]) -> None:
    for name in ("gateway_url", "dagster_url", "warehouse_readonly_url", "api_key", "state_dir"):
        console.print(f"{name:<23} {report[name]}", markup=False, soft_wrap=True)
    services = Table("service", "pid", "state", "restarts")
    for service in report["services"]:
        colour = "green" if service["state"] == "ready" else "red"
        services.add_row(
            service["name"], str(service["pid"] or "-"), f"[{colour}]{service['state']}[/]", str(service["restarts"])
        )
    console.print(services)
    workers = report["workers"]
    if "error" not in workers:
        slots = f"{workers['slots_busy']} of {workers['slots']} processes execute a run"
        console.print(f"{workers['alive']} workers live, on all machines; {slots}")
    columns = {
        "name": "stream",
        "accepted": "accepted",
        "backlog": "backlog",
        "loaded": "loaded",
        "negative": "negative",
        "rejected": "rejected",
        "unsettled_batches": "in flight",
    }
    streams = Table(*columns.values())
    for stream in report["streams"]:
        cells = (stream.get(name, "-") for name in columns)
        streams.add_row(*(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells))
    console.print(streams)
    for stream in report["streams"]:
        if "error" in stream:
            console.print(f"{stream['name']}: {stream['error']}", style="red", markup=False)
    alerts = report["alerts"]
    for alert in alerts["newest"]:
        console.print(f"{alert['severity']}: {alert['title']}", style=COLOURS[alert["severity"]], markup=False)
    if (more := sum(alerts["open"].values()) - len(alerts["newest"])) > 0:
        console.print(f"and {more} more open alerts: pipeline-platform alerts list", markup=False)
