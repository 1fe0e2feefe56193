"""Any accepted body as canonical NDJSON: one event a line, no blank lines, each line a JSON object.

What is refused here could not be stored or would mean something else than it seems to: everything else is left to the
run, where it costs its own line only. The usual body (flat events without escapes) is checked as a whole with a
handful of C calls; a body with anything unusual is checked a line at a time by `json_checks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import orjson

from pipeline_platform.core.json_elements import elements_of, one_line
from pipeline_platform.gateway.json_checks import (
    MOST_FIELDS,
    check_array,
    check_event,
    line_of_error,
    why_not_json,
)
from pipeline_platform.gateway.problems import ProblemError

_SPACE = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
_SCALARS = {str, int, float, bool, type(None)}
_BIG = float(2**63)


class NotPlainError(Exception):
    """The body needs the careful look, and the caller wanted none of that here."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How large a request may be: bytes of a body (before and after decompression), of a line, events, nesting."""

    body_bytes: int
    line_bytes: int
    events: int
    depth: int


@dataclass(frozen=True, slots=True)
class Events:
    """The events of a request as canonical NDJSON."""

    data: bytes
    count: int


def from_ndjson(body: bytes, bounds: Bounds, *, careful: bool = True) -> Events:
    """An NDJSON body. Lines are kept as they came, without surrounding white space.

    Without `careful` a body that is not plain is a NotPlainError: it takes some microseconds an event.
    """
    body = body.removeprefix(_BOM).rstrip(_SPACE)
    breaks = body.count(b"\n")
    if breaks > 2 * bounds.events:
        raise _too_many(bounds)
    lines = body.split(b"\n")
    if b"\r" in body or not all(lines) or any(line[:1] != b"{" or line[-1:] != b"}" for line in lines):
        numbered = [(number, line.strip(b" \t\r")) for number, line in enumerate(lines, 1)]
        kept = [(number, line) for number, line in numbered if line]
        lines = [line for _, line in kept]
        numbers = [number for number, _ in kept]
        body = b"\n".join(lines)
    else:
        numbers = None
    _bound(lines, numbers, bounds)
    if not _plain_lines(body, lines, bounds):
        _allow(careful)
        for index, line in enumerate(lines):
            if not _plain_line(line):
                check_event(line, index, numbers[index] if numbers else index + 1, bounds.depth)
    return Events(body, len(lines))


def from_json(body: bytes, bounds: Bounds, *, careful: bool = True) -> Events:
    """A JSON object, or an array of objects. Their text is kept as it came, on one line each."""
    body = body.removeprefix(_BOM).strip(_SPACE)
    if not body:
        raise _empty()
    if body[:1] != b"[":
        return _from_object(body, bounds, careful=careful)
    # An array of many small containers takes far more memory than its text.
    if body.count(b"{") + body.count(b"[") > bounds.events * bounds.depth:
        raise _too_many(bounds)
    try:
        events = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        line = line_of_error(body, error)
        detail = f"Line {line}: {why_not_json(body, error)}"
        raise ProblemError("malformed-body", detail, line=line) from None
    if not events:
        raise _empty()
    if len(events) > bounds.events:
        raise _too_many(bounds)
    objects = all(type(event) is dict for event in events)
    plain = objects and _plain(body, events)
    if not plain:
        _allow(careful)
    lines = elements_of(body, len(events) if objects else 0)
    if not plain:
        check_array(lines, events, bounds.depth)
    _bound(lines, None, bounds)
    return Events(b"\n".join(lines), len(lines))


def from_unlabelled(body: bytes, bounds: Bounds, *, careful: bool = True) -> Events:
    """A body without a content type: an array or object if it reads as one, otherwise lines."""
    head = body.removeprefix(_BOM).strip(_SPACE)
    if head[:1] == b"[" or b"\n" not in head:
        return from_json(body, bounds, careful=careful)
    if len(head) > bounds.line_bytes:  # no single event is so long
        return from_ndjson(body, bounds, careful=careful)
    try:
        orjson.loads(head)
    except orjson.JSONDecodeError:
        return from_ndjson(body, bounds, careful=careful)
    return from_json(body, bounds, careful=careful)


def _allow(careful: bool) -> None:
    if not careful:
        raise NotPlainError


def _from_object(body: bytes, bounds: Bounds, *, careful: bool) -> Events:
    if len(body) > bounds.line_bytes:
        raise _too_long(None, 0, bounds)
    if not _plain_line(body):
        _allow(careful)
        check_event(body, 0, None, bounds.depth)
    if b"\n" in body or b"\r" in body:
        body = one_line(body)
    return Events(body, 1)


def _plain_line(line: bytes) -> bool:
    try:
        event = orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return type(event) is dict and _plain(line, [event])


def _plain_lines(body: bytes, lines: list[bytes], bounds: Bounds) -> bool:
    """Whether every line is a plain event, found out with one parse for all.

    The newline stays before the comma that joins two lines: JSON has no raw newline within a text, so none can span
    two lines. As every line begins with `{` and ends with `}`, and plain events hold no other braces outside of
    texts, as many events as lines means one event a line.
    """
    # Many small containers take far more memory than their text, if all lines are parsed at once.
    if body.count(b"{") + body.count(b"[") > len(lines) * bounds.depth:
        return False
    try:
        events = orjson.loads(b"[" + body.replace(b"\n", b"\n,") + b"]")
    except orjson.JSONDecodeError:
        return False
    return len(events) == len(lines) and all(type(event) is dict for event in events) and _plain(body, events)


def _plain(text: bytes, events: list[dict[str, Any]]) -> bool:
    """Whether the events are flat and small, without escapes and repeated fields, their numbers within 64 bits.

    A repeated field leaves more quotes in the text than the parsed events account for.
    """
    if b"\\" in text or max(map(len, events), default=0) > MOST_FIELDS:
        return False
    values = list(chain.from_iterable(map(dict.values, events)))
    kinds = list(map(type, values))
    if not _SCALARS.issuperset(kinds):
        return False
    if text.count(b'"') != 2 * (sum(map(len, events)) + kinds.count(str)):
        return False
    numbers = [value for value in values if value.__class__ is float]
    return not numbers or (max(numbers) < _BIG and min(numbers) > -_BIG)


def _bound(lines: list[bytes], numbers: list[int] | None, bounds: Bounds) -> None:
    if not lines:
        raise _empty()
    if len(lines) > bounds.events:
        raise _too_many(bounds)
    longest = max(map(len, lines))
    if longest > bounds.line_bytes:
        index = next(index for index, line in enumerate(lines) if len(line) > bounds.line_bytes)
        raise _too_long(numbers[index] if numbers else index + 1, index, bounds)


def _empty() -> ProblemError:
    return ProblemError("malformed-body", "The body holds no event.")


def _too_many(bounds: Bounds) -> ProblemError:
    return ProblemError("too-large", f"A request may hold at most {bounds.events} events; send several.")


def _too_long(line: int | None, index: int, bounds: Bounds) -> ProblemError:
    where: dict[str, Any] = {"index": index} if line is None else {"line": line, "index": index}
    return ProblemError(
        "too-large", f"Event {index} is longer than the {bounds.line_bytes} bytes that an event may have.", **where
    )
