"""The careful look at one event: what is wrong with it, and in which line.

Refused are texts that JSON readers disagree about (repeated fields, integers beyond 64 bits, lone surrogates) or that
the warehouse cannot hold (NUL, numbers that are not finite), and nesting and fields beyond their bounds.
"""

from __future__ import annotations

import json
import re
from typing import Any

import orjson

from pipeline_platform.gateway.json_fields import field_at_odds
from pipeline_platform.gateway.problems import ProblemError, shown

MOST_FIELDS = 1000  # of an object; a stream declares at most 48
_NOT_FINITE = re.compile(rb"-?\b(?:NaN|Infinity|nan|inf|Inf)\b")


class _RefusedError(ValueError):
    """A hook of the JSON reader refused what it saw."""


def check_event(text: bytes, index: int, line: int | None, depth: int) -> None:
    """Raises the ProblemError of one event's text, if it has one. `line` counts from 1, `index` from 0."""
    reason = _reason(text, depth)
    if reason:
        field = field_at_odds(text)
        raise _refused(f"{field}: {reason}" if field else reason, index, line)


def check_array(lines: list[bytes], events: list[Any], depth: int) -> None:
    """The same for each element of an array, its text and what it was parsed as."""
    for index, (line, event) in enumerate(zip(lines, events, strict=True)):
        # Before it is read again, which recurses as deep as it is nested.
        reason = _wrong_shape(event, depth)
        if reason:
            raise _refused(reason, index, None)
        check_event(line, index, None, depth)


def _refused(reason: str, index: int, line: int | None) -> ProblemError:
    where: dict[str, Any] = {"index": index} if line is None else {"line": line, "index": index}
    place = f"Event {index}" if line is None else f"Line {line}"
    return ProblemError("malformed-event", f"{place}: {reason}", **where)


def _wrong_shape(event: object, depth: int) -> str | None:
    if type(event) is not dict:
        return "an event is a JSON object."
    return f"the event is nested more than {depth} deep." if _too_deep(event, depth) else None


def _reason(text: bytes, depth: int) -> str | None:
    try:
        event = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        return why_not_json(text, error)
    wrong = _wrong_shape(event, depth)
    if wrong:
        return wrong
    if b"\\u0000" in text and _holds_nul(event):
        return "a text holds a NUL character (\\u0000), which the warehouse cannot store."
    try:
        _CAREFUL.decode(text.decode())
    except _RefusedError as error:
        return str(error)
    return None


def why_ambiguous(text: bytes) -> str | None:
    """Why readers would disagree about a JSON document that is no event, if they would."""
    try:
        _CAREFUL.decode(text.decode())
    except _RefusedError as error:
        return str(error)
    except RecursionError:
        return "it is nested too deep."
    return None


def why_not_json(text: bytes, error: orjson.JSONDecodeError) -> str:
    """In words a producer understands: why the reader refused `text`."""
    try:
        text.decode()
    except UnicodeDecodeError as undecodable:
        return f"byte {undecodable.start} is not valid UTF-8."
    said = error.msg
    if "infinity" in said:
        return "a number is too large for a 64-bit float, so it would not be finite."
    if "surrogate" in said:
        return "a text holds a lone surrogate (\\ud800 to \\udfff), which is not a character."
    if "depth" in said or "recursion" in said.lower():
        return "it is nested too deep."
    if _NOT_FINITE.search(text, max(0, error.pos - 1), error.pos + 16):
        return "NaN and Infinity are not JSON; leave the field out instead."
    return f"it is not JSON: {shown(said, 120)} at character {error.pos}."


def line_of_error(text: bytes, error: orjson.JSONDecodeError) -> int:
    """The line, counted from 1, that the reader stumbled over."""
    try:
        return text.decode().count("\n", 0, error.pos) + 1
    except UnicodeDecodeError as undecodable:
        return text.count(b"\n", 0, undecodable.start) + 1


def _too_deep(event: object, depth: int) -> bool:
    """Level by level, not by recursion: the reader lets through far more levels than Python's stack would."""
    level: list[Any] = [event]
    for _ in range(depth):
        inner: list[Any] = []
        for value in level:
            values = value.values() if type(value) is dict else value
            inner += [part for part in values if type(part) is dict or type(part) is list]
        if not inner:
            return False
        level = inner
    return True


def _holds_nul(value: object) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any(_holds_nul(part) for pair in value.items() for part in pair)
    return isinstance(value, list) and any(map(_holds_nul, value))


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these fields, unless they are too many or one is there twice."""
    if len(pairs) > MOST_FIELDS:
        raise _RefusedError(f"it has more than {MOST_FIELDS} fields.")
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _RefusedError(f"the field {shown(name)!r} is given twice.")
        found[name] = value
    return found


def _integer(text: str) -> int:
    if len(text) <= 20:
        value = int(text)
        if -(2**63) <= value < 2**64:
            return value
    raise _RefusedError("an integer is beyond 64 bits; write it like 1e30 if a float is meant.")


_CAREFUL = json.JSONDecoder(object_pairs_hook=without_repeats, parse_int=_integer, strict=True)
