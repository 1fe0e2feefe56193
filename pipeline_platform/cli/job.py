"""`job`: what became of an accepted request."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pipeline_platform.cli.gateway_client import GatewayClient
from pipeline_platform.cli.ingest.session import find_gateway
from pipeline_platform.cli.options import AsJson, StateDir, console, key_option, print_json
from pipeline_platform.cli.outcomes import is_settled, wait_for_receipt

COLOURS = {"loaded": "green", "partial": "yellow", "failed": "red"}
STAGES = ("received_at", "planned_at", "requested_at", "started_at", "loaded_at", "visible_at")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("job")(job)


def job(
    receipt: Annotated[str, typer.Argument(help="The receipt that the gateway gave.", show_default=False)],
    state_dir: StateDir = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for the outcome.")] = 0.0,
    url: Annotated[str | None, typer.Option(help="Another gateway.", show_default=False)] = None,
    key: Annotated[str | None, key_option()] = None,
    as_json: AsJson = False,
) -> None:
    """Show what became of an accepted request: its state, counts, batch, Dagster run and times.

    Exit code 1 when it failed, and when --wait ended before an outcome.

    Example: pipeline-platform job telemetry.1763712000000-0 --wait 30
    """
    document = _find(state_dir, receipt, wait, url, key)
    if as_json:
        print_json(document)
    else:
        _print(document)
    if document.get("state") == "failed" or (wait and not is_settled(document)):
        raise typer.Exit(1)


def _find(state_dir: Path | None, receipt: str, wait: float, url: str | None, key: str | None) -> dict[str, Any]:
    _, url, key = find_gateway(state_dir, url, key)
    client = GatewayClient(url, key, patience=max(wait, 5.0))
    try:
        return wait_for_receipt(client, receipt, wait)
    finally:
        client.close()


def _print(document: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    state = str(document.get("state"))
    table.add_row("receipt", escape(str(document.get("receipt"))))
    table.add_row("state", f"[{COLOURS.get(state, 'cyan')}]{escape(state)}[/]")
    counts = {name: count for name, count in (document.get("counts") or {}).items() if count is not None}
    table.add_row("events", ", ".join(f"{count:,} {escape(name)}" for name, count in counts.items()))
    if batch := document.get("batch"):
        size = f"{batch.get('events'):,} events of {batch.get('entries'):,} requests"
        progress = f"{escape(str(batch.get('state')))}, attempt {batch.get('attempt')}"
        table.add_row("batch", f"{batch.get('id')} ({progress}, {size})")
    if run := document.get("run"):
        table.add_row("run", escape(str(run.get("url") or run.get("id"))))
    if error := document.get("error"):
        table.add_row("error", f"[red]{escape(str(error.get('message')))}[/]")
        if error.get("next_attempt_at"):
            table.add_row("next attempt", escape(str(error["next_attempt_at"])))
    console.print(table)
    console.print(_breakdown(document.get("times") or {}))


def _breakdown(times: dict[str, Any]) -> Table:
    """Where the time goes: each stage that was reached, when, how long it took, and how long after the receipt."""
    table = Table("stage", "reached at", box=None)
    table.add_column("took", justify="right")
    table.add_column("since receipt", justify="right")
    reached = [(stage, datetime.fromisoformat(str(times[stage]))) for stage in STAGES if times.get(stage)]
    for number, (stage, moment) in enumerate(reached):
        before = reached[number - 1][1] if number else moment
        took, since = (f"{(moment - other).total_seconds() * 1000:,.0f} ms" for other in (before, reached[0][1]))
        table.add_row(stage.removesuffix("_at"), moment.isoformat(), *((took, since) if number else ()))
    return table
