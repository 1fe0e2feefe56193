"""`keys`: who may use the gateway, and for what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any

import typer
from rich.table import Table

from pipeline_platform.access.audit import Audit
from pipeline_platform.cli.asking import cell, print_rows
from pipeline_platform.cli.auditing import auditing, system_user
from pipeline_platform.cli.options import DAY, AsJson, StateDir, connections, day, print_json
from pipeline_platform.core.names import no_stream
from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import PermanentError, SettingError
from pipeline_platform.local.connections import Connections
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import SCOPES, Key, KeyStore, token_id
from pipeline_platform.settings import Settings

_SPAN = re.compile(r"(\d{1,6})([mhd])\Z", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days"}
group = typer.Typer(help="Make, list and revoke API keys.  Example: pipeline-platform keys list", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.add_typer(group, name="keys")


@group.command("create")
def create(
    name: Annotated[str, typer.Argument(help="Who or what the key is for.", show_default=False)],
    scope: Annotated[
        list[str] | None,
        typer.Option(help=f"{', '.join(SCOPES)}; may be repeated (default: ingest and read).", show_default=False),
    ] = None,
    stream: Annotated[
        list[str] | None,
        typer.Option(help="Good for this stream only; may be repeated (default: all streams).", show_default=False),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option(help="Good for so long, such as 90d or 12h, or until a date or time (default: for ever)."),
    ] = None,
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its token, which cannot be shown again: only its hash is kept.

    Example: pipeline-platform keys create "press hall" --scope ingest --stream telemetry --expires 90d
    """
    settings, where = connections(state_dir)
    until, maker = _until(expires, datetime.now(UTC)), system_user()
    _check_streams(settings, stream or [])
    with _store(where) as store:
        key, token = store.create(
            name, scope or ["ingest", "read"], streams=stream or (), expires_at=until, created_by=maker
        )
    document = _document(key)
    told = {part: document[part] for part in ("id", "name", "scopes", "streams", "expires_at")}
    with auditing(settings, where) as audit:
        _tell(audit, "key-created", maker, told)
    if as_json:
        print_json({**document, "token": token})
        return
    typer.echo(token)
    good_for = f" for {' and '.join(sorted(key.streams))}" if key.streams else ""
    end = f" until {_time(key.expires_at)}" if key.expires_at else ""
    note = f"The key {key.id} for {key.name} may {' and '.join(sorted(key.scopes))}{good_for}{end}."
    typer.echo(f"{note} Keep the token: it is shown once.", err=True)


@group.command("list")
def list_keys(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List all keys, revoked and expired ones too, without their tokens. Times are UTC; last use is to the minute.

    Example: pipeline-platform keys list --json
    """
    _, where = connections(state_dir)
    with _store(where) as store:
        keys = store.list()
    if as_json:
        print_json([_document(key) for key in keys])
        return
    table = Table("id", "name", "scopes", "streams", "state", "created", "by", "expires", "last used")
    for key in keys:
        state = _state(key)
        table.add_row(
            cell(key.id),
            cell(key.name),
            cell(" ".join(sorted(key.scopes))),
            cell(" ".join(sorted(key.streams)) if key.streams is not None else "all"),
            cell(state, {"good": "green"}.get(state, "dim")),
            cell(_time(key.created_at)),
            cell(key.created_by),
            cell(_time(key.expires_at)),
            cell(_time(key.last_used_at)),
        )
    print_rows(table)


@group.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.", show_default=False)],
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """End a key for good; gateways notice within seconds.

    Example: pipeline-platform keys revoke 1a2b3c4d
    """
    settings, where = connections(state_dir)
    key_id = token_id(key_id) or key_id
    with _store(where) as store:
        if not store.revoke(key_id):
            raise PermanentError(f"There is no key {key_id[:40]!r}; `pipeline-platform keys list` shows their ids.")
    with auditing(settings, where) as audit:
        _tell(audit, "key-revoked", system_user(), {"id": key_id})
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        typer.echo(f"The key {key_id} is revoked.")


@contextmanager
def _store(where: Connections) -> Iterator[KeyStore]:
    client = connect(where.redis_url)
    try:
        yield KeyStore(client)
    finally:
        client.close()


def _tell(audit: Audit, event: str, user: str, detail: dict[str, Any]) -> None:
    audit.record(event, actor=f"os {user}", address="local", detail=detail)


def _check_streams(settings: Settings, streams: list[str]) -> None:
    known = load_specs(settings.streams_dir)
    for stream in streams:
        if stream not in known:
            raise SettingError(no_stream(stream, known))


def _until(text: str | None, now: datetime) -> datetime | None:
    """The end of a key: a span from now, or a date or time, UTC unless it says otherwise."""
    if text is None:
        return None
    try:
        if match := _SPAN.match(text):
            return now + timedelta(**{_UNITS[match[2]]: int(match[1])})
        if DAY.fullmatch(text):
            return datetime.combine(day(text, "--expires"), time(), UTC)
        if not re.search("[Tt ]", text):
            raise ValueError
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise SettingError(f"{text[:40]!r} is no end of a key; write 90d, 12h, 2027-01-31 or a time.") from None


def _state(key: Key) -> str:
    return "revoked" if key.revoked_at else "expired" if key.expired() else "good"


def _time(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def _document(key: Key) -> dict[str, Any]:
    times = {name: getattr(key, name) for name in ("created_at", "revoked_at", "expires_at", "last_used_at")}
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "streams": sorted(key.streams) if key.streams is not None else None,
        "state": _state(key),
        "created_by": key.created_by,
        **{name: moment.isoformat() if moment else None for name, moment in times.items()},
    }
