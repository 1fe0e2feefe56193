"""What a receiver's answer means: sent, later, or refused, and then whether the message or the address is to blame."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pipeline_platform.alerts.digest import cut
from pipeline_platform.alerts.secrets import without_secrets
from pipeline_platform.alerts.targets import host_of
from pipeline_platform.core.alerts import Later, Outcome, Refused, Sent
from pipeline_platform.core.failures import FailureKind, of_http_status
from pipeline_platform.core.numbers import float_in
from pipeline_platform.core.retry_after import retry_after

SAID_CHARACTERS = 200
MESSAGE_TO_BLAME = frozenset({400, 406, 411, 413, 414, 415, 422, 431})
# Discord answers 400 and 403 for several things; its `code` tells them apart. discord.com/developers, "Opcodes and
# Status Codes". First: no message would be taken at this address (no such channel or webhook, a forum, an archived or
# locked thread). Then: any message would be taken later.
ADDRESS_TO_BLAME = frozenset(
    {10003, 10004, 10015, 50001, 50013, 50024, 50027, 50083, 160005, 220001, 220002, 220003, 220004}
)
LATER = frozenset({20016, 20022, 20028, 20029, 40004, 130000})


def judge(host: str, status: int, headers: Mapping[str, str], body: bytes, now: datetime) -> Outcome:
    """What an answer means. Its texts are bounded, and hold nothing of the URL but the host."""
    if 200 <= status < 300:
        return Sent(f"{host} answered {status}")
    if 300 <= status < 400:
        elsewhere = host_of(headers.get("Location", ""))
        where = f" to {elsewhere[:80]}" if elsewhere else ""
        return Refused(f"{host} sends us elsewhere ({status}{where}); redirects are not followed: give the final URL.")
    document = _document(body)
    said = document.get("message") if document else body.decode("utf-8", "replace")
    text = cut(without_secrets(" ".join(str(said or "").split())), SAID_CHARACTERS)
    why = f"{host} answered {status}" + (f": {text}" if text else "")
    number = document.get("code")
    code = number if isinstance(number, int) else 0
    if of_http_status(status) is FailureKind.TRANSIENT or code in LATER:
        everyone = status == 429 and (
            headers.get("X-RateLimit-Global", "").lower() == "true"
            or headers.get("X-RateLimit-Scope", "").lower() == "global"
            or document.get("global") is True
        )
        asked = (document.get("retry_after"), retry_after(headers.get("Retry-After"), now))
        return Later(max(map(_seconds, asked)), why, everyone)
    return Refused(why, drop=status in MESSAGE_TO_BLAME and code not in ADDRESS_TO_BLAME)


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0.0
    try:
        seconds = float_in(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError):
        return 0.0
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
