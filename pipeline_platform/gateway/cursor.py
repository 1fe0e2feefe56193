"""Opaque cursors: where the next page of a query begins, for that query only."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from pipeline_platform.core.windows import to_datetime, to_micros
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform.warehouse.queries import PageKey

_LONGEST = 8192
_LAST_US = 253_402_300_799_000_000  # the end of the year 9999


@dataclass(frozen=True, slots=True)
class Cursor:
    """The range of the first page, so that `now` stays what it was, and the last row seen."""

    start: datetime
    end: datetime
    after: PageKey


def encode_cursor(cursor: Cursor, question: str) -> str:
    """The cursor as text; `question` is `question_of` the query that it continues."""
    parts = [
        question,
        to_micros(cursor.start),
        to_micros(cursor.end),
        to_micros(cursor.after.window_start),
        *cursor.after.dimensions,
    ]
    return base64.urlsafe_b64encode(orjson.dumps(parts)).decode().rstrip("=")


def decode_cursor(text: str, question: str, dimensions: int) -> Cursor:
    """The cursor of a text that anybody may have written; a 400 problem when it is not one of this query."""
    parts = _parts(text)
    if len(parts) != 4 + dimensions or parts[0] != question:
        raise _bad()
    times = [value for value in parts[1:4] if type(value) is int and 0 <= value <= _LAST_US]
    texts = [value for value in parts[4:] if type(value) is str and "\0" not in value]
    if len(times) != 3 or len(texts) != dimensions:
        raise _bad()
    start, end, window = (to_datetime(value) for value in times)
    return Cursor(start, end, PageKey(window, tuple(texts)))


def question_of(stream: str, filters: Mapping[str, Sequence[str]]) -> str:
    """A short digest of what is asked, apart from the range and the page."""
    wanted = {name: list(values) for name, values in filters.items()}
    asked = orjson.dumps([stream, wanted], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(asked, digest_size=6).hexdigest()


def encode_place(row_id: int, question: str) -> str:
    """Where the next page of a list by falling ids begins, as text."""
    return base64.urlsafe_b64encode(orjson.dumps([question, row_id])).decode().rstrip("=")


def decode_place(text: str | None, question: str) -> int | None:
    """The id that the next page lies below; a 400 problem when it is no place in this list."""
    if text is None:
        return None
    parts = _parts(text)
    if len(parts) != 2 or parts[0] != question or type(parts[1]) is not int or not 0 <= parts[1] < 2**63:
        raise _bad()
    return parts[1]


def _parts(text: str) -> list[object]:
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), b"-_", validate=True)
        parts = orjson.loads(raw) if len(text) <= _LONGEST else None
    except (ValueError, binascii.Error):
        raise _bad() from None
    if not isinstance(parts, list):
        raise _bad()
    return parts


def _bad() -> ProblemError:
    return ProblemError("bad-cursor", "The cursor does not belong to this query; take it from the page before.")
