"""`audit`: who did what, from where, and how it ended."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from pipeline_platform.access.audit import EVENTS
from pipeline_platform.cli.asking import (
    AdminKey,
    Limit,
    Since,
    Until,
    Url,
    asking,
    cell,
    moment,
    pages,
    print_rows,
    query,
    when,
)
from pipeline_platform.cli.gateway_client import GatewayClient
from pipeline_platform.cli.options import AsJson, StateDir, console, print_json
from pipeline_platform.cli.terminal import printable

POLL_SECONDS = 1.0
_PAGE = 100
_COLOURS = {"refused": "yellow", "failed": "red"}


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("audit")(audit)


def audit(
    state_dir: StateDir = None,
    event: Annotated[
        list[str] | None, typer.Option(help=f"{', '.join(EVENTS)}; may be repeated (default: all).", show_default=False)
    ] = None,
    actor: Annotated[
        str | None, typer.Option(help="`key <id>`, `user <name>` or `os <name>`.", show_default=False)
    ] = None,
    outcome: Annotated[str | None, typer.Option(help="ok, refused or failed.", show_default=False)] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    url: Url = None,
    key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """List who did what: keys made, requests refused, dead letters read, replays, logins. The newest first.

    With --follow the newest comes last, a line each; with --json each line is an object.

    Example: pipeline-platform audit --event forbidden --event unauthorized --since 1d
    """
    now = datetime.now(UTC)
    asked = {
        **{"event": event, "actor": actor, "outcome": outcome},
        **{"since": moment(since, now), "until": moment(until, now)},
    }
    with asking(state_dir, url, key) as client:
        rows = pages(client, "/v1/audit", asked, limit)
        if follow:
            _follow(client, asked, rows, as_json)
            return
    if as_json:
        print_json(rows)
        return
    if not rows:
        console.print("Nothing in the audit matches.")
        return
    table = Table("id", "at", "event", "who", "as", "from", "outcome", "about")
    for row in rows:
        table.add_row(
            cell(str(row["id"])),
            cell(when(row["at"])),
            cell(row["event"]),
            cell(row["actor"]),
            cell(row["actor_role"]),
            cell(row["address"]),
            cell(row["outcome"], _COLOURS.get(row["outcome"], "")),
            cell(_about(row)),
        )
    print_rows(table)


def _follow(client: GatewayClient, asked: dict[str, Any], rows: list[dict[str, Any]], as_json: bool) -> None:
    last = 0
    while True:
        for row in reversed(rows):
            last = max(last, row["id"])
            typer.echo(orjson.dumps(row).decode() if as_json else _line(row))
        time.sleep(POLL_SECONDS)
        rows = _newer(client, asked, last)


def _newer(client: GatewayClient, asked: dict[str, Any], last: int) -> list[dict[str, Any]]:
    """What has come since the row `last`, the newest first."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = client.get("/v1/audit" + query({**asked, "limit": _PAGE, "cursor": cursor}))
        rows += [row for row in page["data"] if row["id"] > last]
        cursor = page["next_cursor"]
        if cursor is None or page["data"][-1]["id"] <= last:
            return rows


def _line(row: dict[str, Any]) -> str:
    parts = (when(row["at"]), row["event"], row["actor"] or "-", row["address"] or "-", row["outcome"], _about(row))
    return printable("  ".join(parts))


def _about(row: dict[str, Any]) -> str:
    return "  ".join(
        f"{name}={value if isinstance(value, str | int) else orjson.dumps(value).decode()}"
        for name, value in row["detail"].items()
        if value is not None
    )
