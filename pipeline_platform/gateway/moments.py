"""Times as people and programs write them in a URL or a body."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator, WithJsonSchema

from pipeline_platform.core.numbers import as_json, whole_number_in
from pipeline_platform.core.windows import to_datetime

_LAST_MS = 253_402_300_799_000


def parse_moment(text: object) -> datetime:
    """RFC 3339 with an offset, or epoch milliseconds, as an aware UTC time. Raises ValueError saying what is wrong."""
    try:
        if not isinstance(text, str) or len(text) > 40:
            raise ValueError
        if as_json(text) is not None:
            millis = whole_number_in(text)
            if millis < 0:
                raise ValueError
            return to_datetime(min(millis, _LAST_MS) * 1000)
        text = text.upper()
        # A `+` that was not escaped in a URL arrives as a space.
        moment = datetime.fromisoformat(text.replace(" ", "+") if text[-6:-5] == " " else text)
        if moment.tzinfo is None:
            raise ValueError
        moment = moment.astimezone(UTC)
        if moment.year < 1970:
            raise ValueError
    except (ValueError, OverflowError):
        raise ValueError("should be an RFC 3339 time with an offset since 1970, or epoch milliseconds.") from None
    return moment


Moment = Annotated[
    datetime,
    BeforeValidator(parse_moment),
    WithJsonSchema({"type": "string", "examples": ["2026-11-21T08:00:00Z", "1795248000000"]}),
]
