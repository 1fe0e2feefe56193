"""When a symbol that its source refuses is parked, and when it is asked for all the same."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from pipeline_platform.core.prices import Instrument

PARKED_AFTER = timedelta(days=3)  # of refusals without an answer between them
PARKED_PAUSE = timedelta(days=1)

AskedFor = Literal["quotes", "candles"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A source has refused a symbol since `since`, last at `at`, `times` times; `said` are its last words."""

    instrument: Instrument
    asked_for: AskedFor
    since: datetime
    at: datetime
    times: int
    said: str
    parked_at: datetime | None = None

    def due(self, now: datetime) -> bool:
        """Whether it is to be asked for: as ever before it is parked, then once a day."""
        return self.parked_at is None or now >= self.at + PARKED_PAUSE


def refused(before: Refusal | None, instrument: Instrument, asked_for: AskedFor, said: str, now: datetime) -> Refusal:
    """What is known after one more refusal."""
    if before is None:
        return Refusal(instrument, asked_for, now, now, 1, said)
    parked_at = before.parked_at or (now if now - before.since >= PARKED_AFTER else None)
    return Refusal(instrument, asked_for, before.since, now, before.times + 1, said, parked_at)
