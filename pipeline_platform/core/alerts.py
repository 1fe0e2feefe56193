"""Alerts as values: what is told, whom it concerns, what a receiver answered, and how long to wait then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

SEVERITIES = ("info", "warning", "critical")  # from least to most
PAUSE_FIRST, PAUSE_LONGEST = 5.0, 300.0
ASKED_LONGEST = 86_400.0  # a receiver may ask for a day of silence, not for a year
REFUSALS = 288  # a day of them, one every PAUSE_LONGEST: somebody may put the address right meanwhile


class Phase(StrEnum):
    """What a delivery tells of an alert."""

    RAISED = "raised"
    RESOLVED = "resolved"


@dataclass(frozen=True)
class Rule:
    """Which alerts a route wants, and when. `streams` and `kinds`: None for all. Times are seconds."""

    route: str
    streams: tuple[str, ...] | None = None
    kinds: tuple[str, ...] | None = None
    min_severity: str = "info"
    digest_seconds: float = 10.0
    renotify_seconds: float = 3600.0

    @property
    def severities(self) -> tuple[str, ...]:
        """`min_severity` and what is worse."""
        return SEVERITIES[SEVERITIES.index(self.min_severity) :]


@dataclass(frozen=True)
class Notice:
    """One alert as a message tells it."""

    alert_id: int
    phase: Phase
    kind: str
    severity: str
    stream: str | None
    title: str
    body: str
    times: int
    raised_at: datetime
    last_raised_at: datetime
    resolved_at: datetime | None = None
    sample: Sequence[Any] = ()

    @property
    def over(self) -> bool:
        """Whether it is resolved: a raise may be told so late that it is."""
        return self.resolved_at is not None


@dataclass(frozen=True)
class Sent:
    """The receiver took the message."""

    said: str


@dataclass(frozen=True)
class Later:
    """It did not, and the same message may be taken later. `seconds`: what the receiver asked for, else 0.

    `everyone`: it asked all senders of this address to wait, whatever the route.
    """

    seconds: float
    why: str
    everyone: bool = False


@dataclass(frozen=True)
class Refused:
    """It will not take it. `drop`: the message is to blame; otherwise the address is, and somebody may correct it."""

    why: str
    drop: bool = False


Outcome = Sent | Later | Refused


def pause(tries: int, asked: float = 0.0) -> float:
    """Seconds before the next try after `tries` in vain: 5, 10, ... 300, or longer when the receiver asked for it."""
    grown = PAUSE_FIRST * 2.0 ** min(max(tries, 1) - 1, 20)
    return max(min(grown, PAUSE_LONGEST), min(max(asked, 0.0), ASKED_LONGEST))
