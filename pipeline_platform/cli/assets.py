"""`assets`: every batch, replay, ETL partition and failed run, and how it went."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from pipeline_platform.cli.asking import (
    Limit,
    OperateKey,
    Since,
    Until,
    Url,
    asking,
    cell,
    moment,
    pages,
    print_rows,
    when,
)
from pipeline_platform.cli.options import AsJson, StateDir, console, key_option, print_json

COLOURS = {
    "loaded": "green",
    "replayed": "green",
    "failed": "red",
    "dead": "bold red",
    "planned": "cyan",
    "obsolete": "dim",
}
group = typer.Typer(
    help="Look at the ledger of every unit of work, and try failed ones again.  Example: pipeline-platform assets list",
    no_args_is_help=True,
)
AssetId = Annotated[int, typer.Argument(min=1, help="The row's number, as `assets list` shows it.", show_default=False)]
ReadKey = Annotated[str | None, key_option()]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(group, name="assets")


@group.command("list")
def list_(
    state_dir: StateDir = None,
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="planned, loaded, failed, dead, replayed, obsolete; or failing: all that failed and is not loaded."
        ),
    ] = None,
    kind: Annotated[list[str] | None, typer.Option(help="ingest, replay or etl.")] = None,
    stream: Annotated[list[str] | None, typer.Option(help="Only those of this stream.")] = None,
    asset: Annotated[
        str | None, typer.Option(help="The Dagster asset, such as warehouse/telemetry_events.", show_default=False)
    ] = None,
    partition: Annotated[str | None, typer.Option(help="The partition of the asset.", show_default=False)] = None,
    job: Annotated[str | None, typer.Option(help="The Dagster job.", show_default=False)] = None,
    run: Annotated[str | None, typer.Option(help="A Dagster run of any attempt.", show_default=False)] = None,
    receipt: Annotated[
        str | None, typer.Option(help="The batch of this request and the replays of it.", show_default=False)
    ] = None,
    replay: Annotated[int | None, typer.Option(help="The batches of this replay.", show_default=False)] = None,
    text: Annotated[str | None, typer.Option(help="Somewhere in the error.", show_default=False)] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    url: Url = None,
    key: ReadKey = None,
    as_json: AsJson = False,
) -> None:
    """List rows of the table assets, the newest first. Options that are given several times mean any of their values.

    Example: pipeline-platform assets list --state failing --since 2h
    """
    now = datetime.now(UTC)
    asked = {
        **{"state": state, "kind": kind, "stream": stream, "asset_key": asset, "partition": partition, "job": job},
        **{"run_id": run, "receipt": receipt, "replay": replay, "text": text},
        **{"since": moment(since, now), "until": moment(until, now)},
    }
    with asking(state_dir, url, key) as client:
        rows = pages(client, "/v1/assets", asked, limit)
    if as_json:
        print_json(rows)
        return
    if not rows:
        console.print("No rows.")
        return
    table = Table("id", "kind", "asset", "state", "attempt", "events", "rejected", "planned", "error")
    for row in rows:
        table.add_row(
            cell(str(row["id"])),
            cell(row["kind"]),
            cell(row["asset_key"] + (f" [{row['partition']}]" if row["partition"] else "")),
            _state(row),
            cell(row["attempt"]),
            cell(row["counts"]["planned"]),
            cell(row["counts"]["rejected"]),
            cell(when(row["times"]["planned_at"])),
            cell(_brief(row["error"]) if row["failing"] or row["state"] == "obsolete" else ""),
        )
    print_rows(table)


@group.command("show")
def show(
    asset_id: AssetId, state_dir: StateDir = None, url: Url = None, key: ReadKey = None, as_json: AsJson = False
) -> None:
    """Show one row in full: counts, times, runs, and its failures.

    Example: pipeline-platform assets show 12
    """
    with asking(state_dir, url, key) as client:
        row = client.get(f"/v1/assets/{asset_id}")
    if as_json:
        print_json(row)
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    table.add_row("row", cell(f"{row['id']} ({row['kind']})"))
    table.add_row("asset", cell(row["asset_key"] + (f" [{row['partition']}]" if row["partition"] else "")))
    table.add_row("state", _state(row))
    counts = {name: count for name, count in row["counts"].items() if count or name in ("planned", "read", "loaded")}
    table.add_row("events", cell(", ".join(f"{count:,} {name}" for name, count in counts.items())))
    if row["range"]:
        requests = row["range"]
        span = f"{requests['entries']:,}, {requests['first_receipt']} to {requests['last_receipt']}"
        table.add_row("requests", cell(span))
    for name, at in row["times"].items():
        if at:
            table.add_row(name, cell(when(at)))
    spent = ", ".join(f"{seconds:,.3f} s {name}" for name, seconds in row["seconds"].items())
    table.add_row("spent", cell(spent))
    for run in row["runs"]:
        table.add_row("run", cell(run["url"]))
    if row["replay_id"] is not None:
        table.add_row("replay", cell(f"{row['replay_id']}: pipeline-platform dlq replays {row['replay_id']}"))
    if row["state"] == "obsolete":
        table.add_row("obsolete", cell(row["error"]["message"]))
    for failure in row["failures"]:
        place = failure["op"] or "its run"
        told = (
            f"{when(failure['at'])}  attempt {failure['attempt']}, {failure['kind']}, {place}: {failure['error_class']}"
        )
        table.add_row("failure", cell(f"{told}: {failure['message']}", "red"))
    if row["failing"] and row["error"]["next_attempt_at"]:
        table.add_row("next attempt", cell(when(row["error"]["next_attempt_at"])))
    if row["counts"]["rejected"] and row["kind"] == "ingest":
        table.add_row("rejected", cell(f"pipeline-platform dlq list --batch {row['id']}"))
    print_rows(table)


@group.command("replay")
def replay_row(
    asset_id: AssetId,
    state_dir: StateDir = None,
    note: Annotated[str | None, typer.Option(help="Why, for the audit.", show_default=False)] = None,
    url: Url = None,
    key: OperateKey = None,
    as_json: AsJson = False,
) -> None:
    """Try a failed row again: a failing batch at once, a dead one by a replay of its dead letters, the rest by a run.

    Exit code 1 when there is nothing to try again.

    Example: pipeline-platform assets replay 12 --note "the disk is larger now"
    """
    body = orjson.dumps({"note": note})
    with asking(state_dir, url, key, patience=0.0) as client:
        headers = {"Content-Type": "application/json"}
        document = client.post(f"/v1/assets/{asset_id}/replay", body, headers).document
    if as_json:
        print_json(document)
    else:
        console.print(cell(document["message"]), soft_wrap=True)


def _state(row: dict[str, Any]) -> Any:
    failing = row["failing"] and row["state"] == "planned"
    return cell(
        f"{row['state']}{' (failing)' if failing else ''}", COLOURS.get(row["state"], "") if not failing else "red"
    )


def _brief(error: dict[str, Any] | None) -> str:
    if error is None:
        return ""
    message = str(error["message"] or "")
    return f"{error['error_class']}: {message[:117] + '...' if len(message) > 120 else message}"
