"""What the commands that look into `assets` and `dead_letters` share: the gateway, filters, times, cells."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer
from rich.table import Table
from rich.text import Text

from pipeline_platform.cli.gateway_client import GatewayClient
from pipeline_platform.cli.ingest.session import find_gateway
from pipeline_platform.cli.options import key_option
from pipeline_platform.cli.terminal import SafeConsole, printable
from pipeline_platform.errors import SettingError

Url = Annotated[str | None, typer.Option(help="Another gateway.", show_default=False)]
AdminKey = Annotated[str | None, key_option("admin")]
OperateKey = Annotated[str | None, key_option("operate")]
Since = Annotated[
    str | None, typer.Option(help="From then on: an RFC 3339 time, or an age such as 90m, 2h, 7d.", show_default=False)
]
Until = Annotated[str | None, typer.Option(help="Before then, written likewise.", show_default=False)]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")]

_AGE = re.compile(r"(\d{1,6})([smhd])\Z", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_PAGE = 1000
_WIDE = 10_000  # columns of a "terminal" that is a file


@contextmanager
def asking(state_dir: Path | None, url: str | None, key: str | None, patience: float = 5.0) -> Iterator[GatewayClient]:
    """The gateway of the stack, or another, until the block ends."""
    _, url, key = find_gateway(state_dir, url, key)
    client = GatewayClient(url, key, patience=patience)
    try:
        yield client
    finally:
        client.close()


def moment(text: str | None, now: datetime) -> str | None:
    """An age such as 2h as the time that long before `now`; any other time as it is, for the gateway to judge."""
    match = _AGE.match(text) if text else None
    if match is None:
        return text
    try:
        return (now - timedelta(**{_UNITS[match[2]]: int(match[1])})).isoformat()
    except OverflowError:
        raise SettingError(f"{text} is longer ago than time goes back.") from None


def query(parts: Mapping[str, object]) -> str:
    """`?a=1&a=2&b=3` of the parts that are given."""
    given = {name: part for name, part in parts.items() if part not in (None, [], ())}
    return f"?{urlencode(given, doseq=True)}" if given else ""


def pages(client: GatewayClient, path: str, parts: Mapping[str, object], limit: int) -> list[dict[str, Any]]:
    """The first `limit` rows of a list, over as many pages as that takes."""
    rows: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(rows) < limit:
        document = client.get(path + query({**parts, "limit": min(_PAGE, limit - len(rows)), "cursor": cursor}))
        rows += document["data"]
        cursor = document["next_cursor"]
        if cursor is None:
            break
    return rows


def cell(value: object, style: str = "") -> Text:
    """A value from anywhere as a cell: what would steer the terminal is shown instead of sent."""
    text = "" if value is None else f"{value:,}" if isinstance(value, int) else printable(str(value))
    return Text(text, style=style, overflow="fold")


def print_rows(table: Table) -> None:
    """A list for people; in a file or a pipe nothing is folded."""
    SafeConsole(width=None if sys.stdout.isatty() else _WIDE).print(table)


def when(text: object) -> str:
    """A time of the gateway's, to the second, as UTC."""
    return datetime.fromisoformat(str(text)).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if text else ""


def pairs(texts: Sequence[str] | None, option: str, form: str) -> dict[str, str]:
    """`a=b` options as a mapping; `form` says what a and b are, such as OLD=NEW."""
    found: dict[str, str] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise SettingError(f"{option} is written {option} {form}, not {text!r}.")
        if name.strip() in found:
            raise SettingError(f"{option} names {name.strip()!r} twice.")
        found[name.strip()] = value.strip()
    return found
