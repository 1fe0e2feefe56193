"""The pause that a server asks for, as RFC 9110 writes it (10.2.3): the one reader of Retry-After."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from pipeline_platform.core.numbers import float_in


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, from a number or a date: 0 or more, perhaps infinity. None where there is none to be read."""
    try:
        return max(float_in(value or ""), 0.0)
    except ValueError:
        pass
    try:
        at = parsedate_to_datetime(value or "")
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return max(((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds(), 0.0)
