"""What may be asked of a source, who goes first, and since when it fails. Kept for all workers in Redis by
`queue/budgets.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Priority(StrEnum):
    """Live work may spend everything; a backfill leaves a reserve, and waits while live work waits."""

    LIVE = "live"
    BACKFILL = "backfill"


@dataclass(frozen=True, slots=True)
class Allowance:
    """At most `weight` in any `seconds`, `burst` of it at once, `reserve` of the burst for live work alone."""

    weight: float
    seconds: float
    burst: float
    reserve: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.burst < self.weight and self.seconds > 0 and 0 <= self.reserve < self.burst):
            raise ValueError("a budget needs 0 < burst < weight, seconds > 0 and 0 <= reserve < burst")

    @property
    def rate(self) -> float:
        """Weight that comes back a second. A full burst and this rate together never pass `weight` in `seconds`."""
        return (self.weight - self.burst) / self.seconds

    def floor(self, weight: float, priority: Priority) -> float:
        """What has to be left after spending `weight`. A request that needs the reserve gets it from a full burst."""
        return 0.0 if priority is Priority.LIVE else min(self.reserve, max(0.0, self.burst - weight))


EVERYTHING = "*"  # the name of a source's failures in a row, whatever was asked
TOGETHER = 1.0  # seconds within which failures count once: requests of several workers were under way together
FORGOTTEN = 2 * 86_400.0  # seconds after which a failure is no part of a series any more


@dataclass(frozen=True, slots=True)
class Failing:
    """Failures in a row: how many, for how many seconds by now, and how many seconds ago the last one was."""

    count: int
    lasted: float = 0.0
    ago: float = 0.0


class Budget(Protocol):
    """One source's budget, shared by everybody who asks the source; and what is known of its failures."""

    def take(self, weight: float, priority: Priority) -> None:
        """Spend `weight`; waits for it. SourceUnavailableError with `retry_after` when that would take too long,
        SettingError when the budget could never allow it."""

    def pause(self, seconds: float) -> None:
        """Let nobody spend anything for `seconds`: the source has said so (429, 418, Retry-After), or fails."""

    def failing(self, *names: str) -> list[Failing | None]:
        """The failures in a row under each name; None when the last answer was good."""

    def failed(self, *names: str) -> list[Failing]:
        """One more failure under each name, unless the last one was just now."""

    def answered(self, *names: str) -> None:
        """A good answer: the failures under these names are over."""
