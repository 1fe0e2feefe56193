"""`dlq replay`, `dlq discard` and `dlq replays`: a dry run first, then in earnest, and what came of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import orjson
import typer
from rich.table import Table

from pipeline_platform.cli.asking import (
    AdminKey,
    Limit,
    OperateKey,
    Since,
    Until,
    Url,
    asking,
    cell,
    moment,
    pages,
    pairs,
    print_rows,
    when,
)
from pipeline_platform.cli.dead_letters import group
from pipeline_platform.cli.gateway_client import GatewayClient, RefusedError
from pipeline_platform.cli.letter_options import Batch, Field, Reason, Receipt, Stream, TextIn
from pipeline_platform.cli.options import AsJson, StateDir, console, print_json
from pipeline_platform.errors import PermanentError, SettingError, TransientError
from pipeline_platform.gateway.json_checks import why_ambiguous

POLL_SECONDS = 0.5
SET, RENAME = "FIELD=EXPRESSION", "OLD=NEW"  # how the options are written
Ids = Annotated[
    list[int] | None, typer.Argument(help="Their numbers, as `dlq list` shows them; or a filter.", show_default=False)
]
Everything = Annotated[bool, typer.Option("--all", help="Every open dead letter, where there is no filter.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen, also for a single one.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it, however many match. Without it, more than one is a dry run.")]
Note = Annotated[str | None, typer.Option(help="Why, for the audit.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Adds the commands of `dlq`, these and those that only look."""
    app.add_typer(group, name="dlq")


@group.command("replay")
def replay(
    ids: Ids = None,
    state_dir: StateDir = None,
    stream: Stream = None,
    reason: Reason = None,
    field: Field = None,
    receipt: Receipt = None,
    batch: Batch = None,
    text: TextIn = None,
    since: Since = None,
    until: Until = None,
    everything: Everything = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help=f"{SET} over the event's fields, such as 'value=float(value) / 100'."),
    ] = None,
    rename: Annotated[list[str] | None, typer.Option(help=f"{RENAME}: rename a field.")] = None,
    merge: Annotated[
        str | None, typer.Option(help="A JSON merge patch; null removes a field.", show_default=False)
    ] = None,
    note: Note = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait until it is done; needs a key with the scope admin.")
    ] = 0.0,
    url: Url = None,
    key: OperateKey = None,
    as_json: AsJson = False,
) -> None:
    """Try refused events again, with changes or as they are. Only open ones are taken, and each only once.

    When more than one matches, nothing is done but said how many would pass now; --yes does it. Exit code 1 when --wait
    ended before the replay did, or some were refused again.

    Example: pipeline-platform dlq replay --stream telemetry --reason unknown_field --rename val=value --yes --wait 60
    """
    edit = {"set": pairs(set_, "--set", SET), "rename": pairs(rename, "--rename", RENAME), "merge": _merge(merge)}
    given = {name: part for name, part in edit.items() if part}
    asked = _asked(ids, stream, reason, field, receipt, batch, text, since, until, everything=everything)
    asked |= {"note": note, "dry_run": _dry(dry_run, yes)} | ({"edit": given} if given else {})
    with asking(state_dir, url, key, patience=0.0) as client:
        document = _post(client, "replay", asked)
        if wait and not document["dry_run"]:
            document["replay"] = wait_for_replay(client, document["replay"], wait)
    _print(document, as_json)
    if wait and not document["dry_run"] and (document["replay"]["state"] != "done" or document["replay"]["failed"]):
        raise typer.Exit(1)


@group.command("discard")
def discard(
    ids: Ids = None,
    state_dir: StateDir = None,
    stream: Stream = None,
    reason: Reason = None,
    field: Field = None,
    receipt: Receipt = None,
    batch: Batch = None,
    text: TextIn = None,
    since: Since = None,
    until: Until = None,
    everything: Everything = False,
    note: Note = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    url: Url = None,
    key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """Give refused events up: they can be looked at until their retention ends, and are not replayed any more.

    When more than one matches, nothing is done but said how many; --yes does it.

    Example: pipeline-platform dlq discard --stream telemetry --reason duplicate_event_id --note "sent twice" --yes
    """
    asked = _asked(ids, stream, reason, field, receipt, batch, text, since, until, everything=everything)
    asked |= {"note": note, "dry_run": _dry(dry_run, yes)}
    with asking(state_dir, url, key, patience=0.0) as client:
        document = _post(client, "discard", asked)
    _print(document, as_json)


@group.command("replays")
def list_replays(
    replay_id: Annotated[int | None, typer.Argument(min=1, help="Only this one, in full.", show_default=False)] = None,
    state_dir: StateDir = None,
    limit: Limit = 20,
    url: Url = None,
    key: AdminKey = None,
    as_json: AsJson = False,
) -> None:
    """List who replayed, discarded or retried what, when, and what came of it; the newest first.

    Example: pipeline-platform dlq replays --limit 5
    """
    with asking(state_dir, url, key) as client:
        if replay_id is not None:
            found = [client.get(f"/v1/replays/{replay_id}")]
        else:
            found = pages(client, "/v1/replays", {}, limit)
    if as_json:
        print_json(found if replay_id is None else found[0])
        return
    table = Table("id", "action", "by", "when", "state", "took", "passed", "negative", "refused", "which", "note")
    for each in found:
        which = json.dumps(each["filter"]) + (f" edited by {json.dumps(each['edit'])}" if each["edit"] else "")
        counts = [cell(each[name]) for name in ("matched", "passed", "negative", "failed")]
        start = [cell(str(each["id"])), cell(each["action"]), cell(each["requested_by"])]
        table.add_row(
            *start, cell(when(each["requested_at"])), cell(each["state"]), *counts, cell(which), cell(each["note"])
        )
    print_rows(table)


def wait_for_replay(
    client: GatewayClient,
    replay: dict[str, Any],
    seconds: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """The replay's document as soon as it is done, or as it is after `seconds`; tells standard error how far it is."""
    client.patience, deadline, told = 5.0, clock() + seconds, 0
    while replay["state"] != "done" and (left := deadline - clock()) > 0:
        sleep(min(POLL_SECONDS, left))
        try:
            replay = client.get(f"/v1/replays/{replay['id']}")
        except RefusedError as error:
            if error.status != 403:
                raise
            begun = f"Replay {replay['id']} has begun. To wait for it needs a key with the scope admin; its batches: "
            raise PermanentError(f"{begun}`pipeline-platform assets list --replay {replay['id']}`.") from None
        settled = replay["passed"] + replay["negative"] + replay["failed"]
        if settled != told:
            typer.echo(f"{settled:,} of {replay['matched']:,}", err=True)
            told = settled
    return replay


def _asked(
    ids: list[int] | None,
    stream: list[str] | None,
    reason: list[str] | None,
    field: list[str] | None,
    receipt: str | None,
    batch: int | None,
    text: str | None,
    since: str | None,
    until: str | None,
    *,
    everything: bool,
) -> dict[str, Any]:
    """The request's `ids` or `filter`; one of them has to be said."""
    now = datetime.now(UTC)
    parts = {
        **{"streams": stream, "reasons": reason, "fields": field, "receipt": receipt, "batch_id": batch, "text": text},
        **{"since": moment(since, now), "until": moment(until, now)},
    }
    given = {name: part for name, part in parts.items() if part}
    if sum((bool(ids), bool(given), everything)) != 1:
        raise SettingError("Say which dead letters: either their numbers, or a filter such as --stream, or --all.")
    return {"ids": ids} if ids else {"filter": given or {"states": ["open"]}}


def _dry(dry_run: bool, yes: bool) -> bool | None:
    if dry_run and yes:
        raise SettingError("Choose one of --dry-run and --yes.")
    return True if dry_run else False if yes else None


def _merge(text: str | None) -> dict[str, Any] | None:
    try:
        patch = orjson.loads(text) if text is not None else None
    except ValueError:
        raise SettingError('--merge is a JSON object, such as \'{"source": "press-1", "colour": null}\'.') from None
    if text is not None and (reason := why_ambiguous(text.encode())):
        raise SettingError(f"--merge: {reason}")
    if patch is not None and (not isinstance(patch, dict) or not patch):
        raise SettingError("--merge is a JSON object with at least one field.")
    return patch


def _post(client: GatewayClient, action: str, asked: dict[str, Any]) -> dict[str, Any]:
    """Asks once: repeated, a request would find what the first one took, and say that nothing matches."""
    headers = {"Content-Type": "application/json"}
    try:
        return client.post(f"/v1/dead-letters/{action}", orjson.dumps(asked), headers).document
    except TransientError as error:
        raise TransientError(f"{error} Whether it began: `pipeline-platform dlq replays`.") from None


def _print(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(document)
        return
    console.print(cell(document["message"]), soft_wrap=True)
    preview, replay = document["preview"], document["replay"]
    if preview is not None:
        table = Table("id", "outcome", "field", "before", "after", "message")
        for each in preview["examples"]:
            colour = "green" if each["outcome"] == "pass" else "red"
            shown = [cell(each[name]) for name in ("field", "before", "after", "message")]
            table.add_row(cell(str(each["id"])), cell(each["outcome"], colour), *shown)
        refused = ", ".join(f"{count:,} {reason}" for reason, count in preview["would_fail"].items()) or "none"
        words = f"Would be refused again: {refused}. Would be dropped as negative: {preview['negative']:,}."
        console.print(words, markup=False, soft_wrap=True)
        if preview["poison"]:
            console.print(f"Not tried: {preview['poison']:,} poison letters; only a run may.", markup=False)
        if preview["examples"]:
            print_rows(table)
    if document["dry_run"] and document["matched"]:
        console.print("The same command with --yes does it.")
    elif replay is not None and replay["action"] == "replay" and replay["matched"]:
        counts = f"{replay['passed']:,} passed, {replay['negative']:,} negative, {replay['failed']:,} refused again"
        console.print(f"It is {replay['state']}: {counts}.", markup=False, soft_wrap=True)
        if replay["state"] != "done":
            console.print(f"How it goes: pipeline-platform dlq replays {replay['id']}", markup=False, soft_wrap=True)
