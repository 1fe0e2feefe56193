"""`dlq`: refused events: look at them, try them again, give them up, take them along."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

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
from pipeline_platform.cli.letter_options import Batch, Field, Reason, Receipt, State, Stream, TextIn
from pipeline_platform.cli.options import AsJson, StateDir, console, print_json
from pipeline_platform.errors import SettingError

COLOURS = {"open": "red", "replaying": "cyan", "replayed": "green", "discarded": "dim"}
SHOWN = 160  # characters of a payload in a table
group = typer.Typer(
    help="Look at dead letters, replay and discard them.  Example: pipeline-platform dlq list --state open",
    no_args_is_help=True,
)


@group.command("list")
def list_(
    state_dir: StateDir = None,
    stream: Stream = None,
    reason: Reason = None,
    state: State = None,
    field: Field = None,
    receipt: Receipt = None,
    batch: Batch = None,
    text: TextIn = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = 50,
    url: Url = None,
    key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """List refused events, the newest first. Options that are given several times mean any of their values.

    Example: pipeline-platform dlq list --stream telemetry --reason unknown_field --since 1d
    """
    asked = _parts(stream, reason, state, field, receipt, batch, text, since, until)
    with asking(state_dir, url, key) as client:
        letters = pages(client, "/v1/dead-letters", asked, limit)
    if as_json:
        print_json(letters)
        return
    if not letters:
        console.print("No dead letters.")
        return
    table = Table("id", "stream", "reason", "field", "state", "times", "last refused", "message", "payload")
    for letter in letters:
        payload = letter["payload"]
        table.add_row(
            cell(str(letter["id"])),
            cell(letter["stream"]),
            cell(letter["reason"]),
            cell(letter["field"]),
            cell(letter["state"], COLOURS.get(letter["state"], "")),
            cell(letter["attempts"]),
            cell(when(letter["last_failed_at"])),
            cell(letter["message"]),
            cell(payload[:SHOWN] + "..." if len(payload) > SHOWN or letter["truncated"] else payload),
        )
    print_rows(table)


@group.command("show")
def show(
    letter_id: Annotated[int, typer.Argument(min=1, help="Its number, as `dlq list` shows it.", show_default=False)],
    state_dir: StateDir = None,
    url: Url = None,
    key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Show one refused event with all of its payload.

    Example: pipeline-platform dlq show 7
    """
    with asking(state_dir, url, key) as client:
        letter = client.get(f"/v1/dead-letters/{letter_id}")
    if as_json:
        print_json(letter)
        return
    table = Table(show_header=False, box=None)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in letter.items():
        if name in ("links", "truncated") or value is None:
            continue
        shown = when(value) if name.endswith("_at") else str(value)
        table.add_row(name, cell(shown, COLOURS.get(shown, "") if name == "state" else ""))
    if run := letter["links"].get("run"):
        table.add_row("run", cell(run))
    print_rows(table)


@group.command("export")
def export(
    state_dir: StateDir = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file to make. Default: standard output.", show_default=False),
    ] = None,
    stream: Stream = None,
    reason: Reason = None,
    state: State = None,
    field: Field = None,
    receipt: Receipt = None,
    batch: Batch = None,
    text: TextIn = None,
    since: Since = None,
    until: Until = None,
    url: Url = None,
    key: AdminKey = None,
) -> None:
    """Write refused events as NDJSON, the oldest first, payloads in full; without a filter all of them.

    The file is there only when all of it has come. Exit code 1 when it broke off.

    Example: pipeline-platform dlq export --stream telemetry --state open -o letters.ndjson
    """
    asked = _parts(stream, reason, state, field, receipt, batch, text, since, until)
    with asking(state_dir, url, key) as client:
        chunks = client.download("/v1/dead-letters/export" + query(asked))
        if output is None:
            for chunk in chunks:
                sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
            return
        lines = _write(output, chunks)
    typer.echo(f"{lines:,} dead letters are in {output}.", err=True)


def _write(path: Path, chunks: Iterator[bytes]) -> int:
    """Writes the file aside and puts it in place when it is complete, readable by its owner only."""
    part, lines = path.with_name(f"{path.name}.part"), 0
    try:
        part.touch(mode=0o600)
        with part.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                lines += chunk.count(b"\n")
        part.replace(path)
    except OSError as error:
        raise SettingError(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        part.unlink(missing_ok=True)
    return lines


def _parts(
    stream: list[str] | None,
    reason: list[str] | None,
    state: list[str] | None,
    field: list[str] | None,
    receipt: str | None,
    batch: int | None,
    text: str | None,
    since: str | None,
    until: str | None,
) -> dict[str, Any]:
    now = datetime.now(UTC)
    return {
        **{"stream": stream, "reason": reason, "state": state, "field": field, "receipt": receipt, "batch": batch},
        **{"text": text, "since": moment(since, now), "until": moment(until, now)},
    }
