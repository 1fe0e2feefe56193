"""How sensors read their cursors, which people edit in the Dagster UI: an unreadable one is none, with a warning."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import dagster as dg

# Clocks of servers differ a little; a cursor of the far future would have its sensor see nothing for as long.
AHEAD = timedelta(days=1)
_SHOWN = 80  # characters
T = TypeVar("T")


def kept(context: dg.SensorEvaluationContext, read: Callable[[str], T], otherwise: T) -> T:
    """What `read` makes of the sensor's cursor; `otherwise` where there is none, or none that can be read."""
    if not context.cursor:
        return otherwise
    try:
        return read(context.cursor)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError):
        context.log.warning(
            "The cursor %.*r cannot be read: this sensor goes on as if it had none. It writes a new one itself.",
            _SHOWN,
            context.cursor,
        )
        return otherwise


def moment(text: str) -> datetime:
    """A time with its zone that is not in the future; ValueError otherwise."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or at > datetime.now(UTC) + AHEAD:
        raise ValueError(f"{text} has no zone, or is in the future")
    return at


def fields(text: str) -> dict[str, Any]:
    """A JSON object; ValueError or RecursionError otherwise."""
    document = json.loads(text)
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")
    return document
