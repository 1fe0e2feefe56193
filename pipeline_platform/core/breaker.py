"""When a stream's rejects are a bad deploy rather than bad events: limits and decisions of its breaker."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class BreakerState(StrEnum):
    """The states of `breakers.state`."""

    CLOSED = "closed"  # planning goes on
    OPEN = "open"  # nothing is planned; the backlog grows safely
    HALF_OPEN = "half_open"  # one small batch is let through and decides


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """It opens at `share` of rejects among the last `window` events, of which at least `minimum` are rejects.

    It stays open for `pause` seconds, twice as long each time it opens again within `longest_pause` of its closing, and
    `longest_pause` at most. Then a batch of at most `probe_events` events, or of one request, decides.
    """

    share: float = 0.2
    window: int = 10_000
    minimum: int = 100
    pause: float = 60.0
    longest_pause: float = 900.0
    probe_events: int = 1_000


@dataclass(frozen=True, slots=True)
class Counts:
    """A settled batch's events, and how many of them were rejected."""

    events: int
    rejected: int


def recent(batches: Iterable[Counts], limits: BreakerLimits) -> Counts:
    """The sum over the newest batches that hold the last `window` events. `batches`: newest first."""
    events = rejected = 0
    for batch in batches:
        if events >= limits.window:
            break
        events += batch.events
        rejected += batch.rejected
    return Counts(events, rejected)


def trips(counts: Counts, limits: BreakerLimits) -> bool:
    """Whether so many of these events were rejected that planning has to stop."""
    return counts.rejected >= limits.minimum and counts.rejected > limits.share * counts.events


def fails(probe: Counts, limits: BreakerLimits) -> bool:
    """Whether the batch that was let through says that nothing is well yet."""
    return probe.rejected > limits.share * probe.events


def pause(openings: int, limits: BreakerLimits) -> float:
    """Seconds until the probe after the breaker has opened for the `openings`th time in a row."""
    return min(limits.pause * 2.0 ** min(max(openings - 1, 0), 20), limits.longest_pause)
