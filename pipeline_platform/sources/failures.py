"""What a failed answer means: whom it concerns, for how long to leave the source alone, and when it is no accident.

Only an answer that a source documents for an unknown symbol is final. Whatever else goes wrong at somebody else's place
is taken to pass, and asked again after pauses that grow, until it has lasted a day.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import cached_property
from http import HTTPStatus
from typing import Any

from pipeline_platform.core.retry_after import retry_after

LONGEST_NAMED = 4 * 86_400.0  # Binance bans for three days at most
LONGEST_GROWN = 3600.0
LASTING = 86_400.0  # what has failed for so long, without one good answer between, is told as permanent
AT_ONCE = 5.0  # the second pause where the first try may follow at once

# First pauses in seconds, by status; they double each time. After any other failure the first try may follow at once.
FIRST_PAUSES: dict[int, float] = {
    HTTPStatus.UNAUTHORIZED: 60.0,
    HTTPStatus.FORBIDDEN: 60.0,  # Binance: the firewall; others: a wrong key, or a proxy
    HTTPStatus.IM_A_TEAPOT: 120.0,  # Binance: a ban, after 429 was ignored
    HTTPStatus.TOO_MANY_REQUESTS: 10.0,  # Cloudflare's "error code: 1015" too
    HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS: 600.0,  # where we are will not change in a minute
}
QUESTION_PAUSE = 10.0
# With a JSON body, these refuse what was asked, not who asks: other questions go on.
OF_QUESTIONS = frozenset(
    {
        *(HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.CONFLICT),
        *(HTTPStatus.GONE, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.OK),
    }
)
# "IP banned until 1618636066762", "EService:Throttled: 1618636066"
_UNTIL = re.compile(r"(?:until|Throttled:)\s*(\d{10}(?:\d{3})?)(?!\d)")


@dataclass(frozen=True)
class Said:
    """A source's answer that is not what was asked for."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @cached_property
    def text(self) -> str:
        """The beginning of the body, on one line."""
        text = " ".join(self.body[:1000].decode("utf-8", "replace").split())
        return "".join(sign for sign in text if sign.isprintable())

    @cached_property
    def data(self) -> Any:
        """The body as JSON; None when it is not."""
        try:
            return json.loads(self.body, parse_float=Decimal)
        except (ValueError, RecursionError):
            return None

    @property
    def message(self) -> str:
        """What an error object says, in lower case: its `message`, `msg` or `error`."""
        said = self.data if isinstance(self.data, dict) else {}
        found = next((said[name] for name in ("message", "msg", "error") if isinstance(said.get(name), str)), "")
        return found.lower()

    @property
    def is_page(self) -> bool:
        """Whether it is a page for people, as proxies, firewalls and content networks send."""
        return is_page(self.body)

    @property
    def of_question(self) -> bool:
        """Whether it is about this question alone."""
        return self.status in OF_QUESTIONS and isinstance(self.data, dict)

    def named_pause(self, now: datetime) -> float | None:
        """The seconds that the source asks us to wait: in a header, in words, or in a member `retry_after`."""
        if seconds := bounded_pause(self.headers.get("Retry-After"), now):
            return seconds
        if said := named_pause(self.text, now):
            return said
        named = self.data.get("retry_after") if isinstance(self.data, dict) else None
        return bounded_pause(str(named), now) if named else None


def is_page(body: bytes) -> bool:
    """Whether a body is HTML."""
    begins = body[:200].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return begins.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<center", b"<h1"))


def is_error(data: Any) -> bool:
    """Whether JSON data is an error object, whatever status it came with."""
    if not isinstance(data, dict):
        return False
    error = data.get("error")
    said = any(isinstance(data.get(name), str) for name in ("message", "msg", "error", "error_message"))
    return said or (isinstance(error, dict) and "status" in error) or "error_code" in _dict(data.get("status"))


def grown(first: float, count: int) -> float:
    """The pause after so many failures in a row."""
    if not first:
        first, count = AT_ONCE, count - 1
    return min(first * 2.0 ** min(count - 1, 20), LONGEST_GROWN) if count > 0 else 0.0


def named_pause(text: str, now: datetime) -> float | None:
    """The seconds until the time that words name; None when they name none that is to come."""
    named = _UNTIL.search(text)
    if named is None:
        return None
    at = int(named[1]) / (1000 if len(named[1]) > 10 else 1)
    seconds = at - now.timestamp()
    return min(seconds, LONGEST_NAMED) if seconds > 0 else None


def bounded_pause(value: str | None, now: datetime) -> float | None:
    """Seconds of a Retry-After, four days at most; None for anything else."""
    seconds = retry_after(value, now)
    return None if seconds is None or math.isinf(seconds) else min(seconds, LONGEST_NAMED)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
