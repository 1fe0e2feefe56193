"""New passwords, once, for state folders of the time when Dagster kept passwords: in its snapshots, and so in backups.

In three steps, each of which may be cut off and done again: the old passwords are put aside and their files removed
(`rotate_secrets`, before the servers start); the servers get the new ones as they do at every `up`; the old ones are
taken out of Dagster's database, and forgotten (`finish_rotation`).

To rotate by hand: stop `up`, remove the file `rotated` in the state folder, and start it again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg
from psycopg import sql

from pipeline_platform.local.databases import admin_connection
from pipeline_platform.local.logins import LOGINS
from pipeline_platform.local.postgres_cluster import SUPERUSER
from pipeline_platform.local.secret_files import secret, write_private
from pipeline_platform.local.valkey_users import RULES, secret_name

MARKER, FORMER = "rotated", "former.json"
# Files in `secrets/`. API keys are none of them: they never were in Dagster.
ROTATED = (SUPERUSER, *(login.name for login in LOGINS), *(secret_name(user) for user in RULES))
REDACTED = "(redacted)"
SHORTEST = 8  # what is shorter would be found everywhere

# Columns that may hold a text: plain, as JSON, or compressed, as Dagster's snapshots are.
_COLUMNS = """
select c.relname::text, a.attname::text, format_type(a.atttypid, null)
from pg_attribute a join pg_class c on c.oid = a.attrelid
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
    and format_type(a.atttypid, null) in ('text', 'character varying', 'json', 'jsonb', 'bytea')
order by 1, 2
"""


def rotate_secrets(state_dir: Path) -> bool:
    """Put the passwords of an older folder aside and make new ones; call it before the servers are prepared.

    Returns whether they are new. A new folder is marked and left alone.
    """
    if (state_dir / MARKER).exists():
        return False
    folder = state_dir / "secrets"
    former = _former(state_dir)
    if not former:
        former = {name: (folder / name).read_text().strip() for name in ROTATED if (folder / name).exists()}
        if not former:
            _mark(state_dir)
            return False
        write_private(folder / FORMER, json.dumps(former) + "\n")
    for name, old in former.items():
        path = folder / name
        if path.exists() and path.read_text().strip() == old:
            path.unlink()
        secret(state_dir, name)
    return True


def former_passwords(state_dir: Path, name: str) -> tuple[str, ...]:
    """The password that a login may still have, while a rotation is under way."""
    former = _former(state_dir)
    return (former[name],) if name in former else ()


def finish_rotation(state_dir: Path, dagster_url: str, urls: Iterable[str] = ()) -> dict[str, int]:
    """Take the old passwords, and those in `urls`, out of Dagster's database; returns how many rows of each table.

    Does nothing where nothing was rotated. `dagster_url` is of the owner of Dagster's tables.
    """
    if (state_dir / MARKER).exists():
        return {}
    found = redact(dagster_url, [*_former(state_dir).values(), *map(_password, urls)])
    _mark(state_dir)
    (state_dir / "secrets" / FORMER).unlink(missing_ok=True)
    return found


def redact(database_url: str, secrets: Iterable[str]) -> dict[str, int]:
    """Overwrite the secrets wherever a table of the schema `public` holds one; returns the rows changed, by table."""
    words = sorted({spelt for each in secrets if len(each) >= SHORTEST for spelt in (each, quote(each, safe=""))})
    changed: dict[str, int] = {}
    if not words:
        return changed
    with admin_connection(database_url) as connection, connection.transaction():
        for table, column, kind in connection.execute(_COLUMNS.encode()).fetchall():
            if kind == "bytea":
                count = _redact_bytes(connection, table, column, words)
            else:
                count = _redact_text(connection, table, column, kind, words)
            if count:
                changed[table] = changed.get(table, 0) + count
    return changed


def _redact_text(connection: psycopg.Connection[Any], table: str, column: str, kind: str, words: list[str]) -> int:
    count = 0
    change = sql.SQL(
        "update {} set {} = replace({}::text, %(word)s, %(mark)s)::{} where position(%(word)s in {}::text) > 0"
    )
    named = sql.Identifier(column)
    query = change.format(sql.Identifier(table), named, named, sql.SQL(kind), named)
    for word in words:
        count += connection.execute(query, {"word": word, "mark": REDACTED}).rowcount
    return count


def _redact_bytes(connection: psycopg.Connection[Any], table: str, column: str, words: list[str]) -> int:
    where, what = sql.Identifier(table), sql.Identifier(column)
    found: list[tuple[bytes, str]] = []
    with connection.cursor(name="redact") as cursor:
        cursor.itersize = 20
        cursor.execute(sql.SQL("select ctid::text, {} from {} where {} is not null").format(what, where, what))
        for place, data in cursor:
            if (clean := _without(bytes(data), words)) is not None:
                found.append((clean, place))
    change = sql.SQL("update {} set {} = %s where ctid = %s::tid").format(where, what)
    for clean, place in found:
        connection.execute(change, [clean, place])
    return len(found)


def _without(data: bytes, words: list[str]) -> bytes | None:
    """`data` with the words replaced, also inside zlib's format; None when it holds none."""
    try:
        plain, packed = zlib.decompress(data), True
    except zlib.error:
        plain, packed = data, False
    clean = plain
    for word in words:
        clean = clean.replace(word.encode(), REDACTED.encode())
    if clean == plain:
        return None
    return zlib.compress(clean) if packed else clean


def _password(url: str) -> str:
    return unquote(urlsplit(url).password or "")


def _former(state_dir: Path) -> Mapping[str, str]:
    try:
        found: dict[str, str] = json.loads((state_dir / "secrets" / FORMER).read_text())
    except FileNotFoundError:
        return {}
    return found


def _mark(state_dir: Path) -> None:
    (state_dir / MARKER).write_text("The passwords of this folder are newer than those that Dagster once kept.\n")
