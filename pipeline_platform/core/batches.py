"""Exact batches: which entries one run loads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline_platform.core.entries import EntryId, EntrySize


@dataclass(frozen=True, slots=True)
class Batch:
    """The entries of `stream` with first_id <= id <= last_id, both included. When `full`, no more would fit in."""

    stream: str
    first_id: EntryId
    last_id: EntryId
    entries: int
    events: int
    bytes: int
    full: bool = False


def plan_batches(
    stream: str, waiting: Iterable[EntrySize], *, max_events: int, max_bytes: int, max_batches: int
) -> Iterator[Batch]:
    """Cuts `waiting` (ascending ids) into at most `max_batches` consecutive batches within the bounds.

    Every entry up to the end of the last batch is in exactly one batch. An entry that is larger than a bound makes a
    batch of its own: the gateway's limits keep that from happening, and a stuck queue would be worse.
    """
    if max_batches < 1:
        return
    made = 0
    held: list[EntrySize] = []
    events = size = 0
    for entry in waiting:
        if held and (events + entry.events > max_events or size + entry.bytes > max_bytes):
            yield whole_batch(stream, held, full=True)
            made += 1
            if made == max_batches:
                return
            held, events, size = [], 0, 0
        held.append(entry)
        events += entry.events
        size += entry.bytes
    if held:
        yield whole_batch(stream, held, full=events >= max_events or size >= max_bytes)


def without_rest(batches: Iterable[Batch]) -> list[Batch]:
    """The full batches, or the one that is not: a rest behind full ones waits for more, as if it came alone."""
    planned = list(batches)
    return planned[:-1] if len(planned) > 1 and not planned[-1].full else planned


def whole_batch(stream: str, entries: Sequence[EntrySize], *, full: bool = False) -> Batch:
    """One batch of all these entries, of which there is at least one."""
    events, size = sum(entry.events for entry in entries), sum(entry.bytes for entry in entries)
    return Batch(stream, entries[0].id, entries[-1].id, len(entries), events, size, full)


@dataclass(frozen=True, slots=True)
class Pace:
    """How freely runs of batches that are not full may be requested: a token a run. `at` is epoch seconds."""

    tokens: float
    at: float

    def noted(self) -> dict[str, float]:
        """As a cursor keeps it."""
        return {"tokens": round(self.tokens, 3), "at": round(self.at, 3)}

    @classmethod
    def read(cls, noted: Mapping[str, Any]) -> Self:
        """From `noted`; ValueError, KeyError, TypeError or OverflowError when it is something else."""
        pace = cls(float(noted["tokens"]), float(noted["at"]))
        if not (math.isfinite(pace.tokens) and math.isfinite(pace.at)):
            raise ValueError("a pace is two finite numbers")
        return pace


@dataclass(frozen=True, slots=True)
class PaceLimits:
    """`idle` seconds of waiting for more while there are tokens, `per_second` sustained runs, `burst` runs at once."""

    idle: float = 0.05
    per_second: float = 1.0
    burst: float = 5.0


def linger(pace: Pace, now: float, limits: PaceLimits) -> float:
    """Seconds to wait for more entries after the first: short when idle, until the next token when busy.

    So a lone request is loaded at once, and under load the runs, each with its lines in Dagster's event log, stay
    below `per_second` while the batches grow.
    """
    tokens = _refilled(pace, now, limits)
    return max(limits.idle, (1.0 - tokens) / limits.per_second)


def spend(pace: Pace, now: float, runs: int, limits: PaceLimits) -> Pace:
    """The pace after `runs` were requested that more patience might have spared.

    Runs of full batches do not count: there are no fewer of them whoever waits, and a debt for them would delay what
    comes next. What debt others leave is bounded by `burst`.
    """
    return Pace(max(_refilled(pace, now, limits) - runs, -limits.burst), now)


def _refilled(pace: Pace, now: float, limits: PaceLimits) -> float:
    # Neither a clock that went back nor a cursor that somebody edited may lend tokens, or withhold them for long.
    kept = max(pace.tokens, -limits.burst)
    return min(limits.burst, kept + max(0.0, now - pace.at) * limits.per_second)


def retry_pause(attempt: int) -> float:
    """Seconds to wait before attempt `attempt` + 1 of a batch: 2, 4, 8, ... at most 30.

    Not more: what waited out an hour's outage is to be loaded within a minute of its end.
    """
    return float(min(2 ** min(attempt, 5), 30))
