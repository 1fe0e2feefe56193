"""`keys`: who may use the gateway, and for what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pipeline_platform.cli.options import AsJson, StateDir, connections, console, print_json
from pipeline_platform.errors import PermanentError
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import SCOPES, Key, KeyStore, token_id

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
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """Make a key and print its token, which cannot be shown again: only its hash is kept.

    Example: pipeline-platform keys create "shop backend" --scope ingest
    """
    with _store(state_dir) as store:
        key, token = store.create(name, scope or ["ingest", "read"])
    if as_json:
        print_json({**_document(key), "token": token})
        return
    typer.echo(token)
    note = f"The key {key.id} for {key.name} may {' and '.join(sorted(key.scopes))}. Keep the token: it is shown once."
    typer.echo(note, err=True)


@group.command("list")
def list_keys(state_dir: StateDir = None, as_json: AsJson = False) -> None:
    """List all keys, revoked ones too, without their tokens.

    Example: pipeline-platform keys list --json
    """
    with _store(state_dir) as store:
        keys = store.list()
    if as_json:
        print_json([_document(key) for key in keys])
        return
    table = Table("id", "name", "scopes", "created", "revoked")
    for key in keys:
        revoked = f"{key.revoked_at:%Y-%m-%d %H:%M}" if key.revoked_at else ""
        row = (key.id, key.name, " ".join(sorted(key.scopes)), f"{key.created_at:%Y-%m-%d %H:%M}", revoked)
        table.add_row(*map(Text, row))
    console.print(table)


@group.command("revoke")
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.", show_default=False)],
    state_dir: StateDir = None,
    as_json: AsJson = False,
) -> None:
    """End a key for good; gateways notice within seconds.

    Example: pipeline-platform keys revoke 1a2b3c4d
    """
    key_id = token_id(key_id) or key_id
    with _store(state_dir) as store:
        if not store.revoke(key_id):
            raise PermanentError(f"There is no key {key_id[:40]!r}; `pipeline-platform keys list` shows their ids.")
    if as_json:
        print_json({"id": key_id, "revoked": True})
    else:
        typer.echo(f"The key {key_id} is revoked.")


@contextmanager
def _store(state_dir: Path | None) -> Iterator[KeyStore]:
    _, where = connections(state_dir)
    client = connect(where.redis_url)
    try:
        yield KeyStore(client)
    finally:
        client.close()


def _document(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "created_at": key.created_at.isoformat(),
        "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
    }
