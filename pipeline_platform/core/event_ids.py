"""Event ids: which events of a batch repeat an id that is taken.

An id is taken by an event that is loaded, or dropped as negative, and counts from when that event was received. It is
free again for an event received the stream's `unique_for` later or more. So an event that was received earlier than
the one that has its id is a repeat, however much earlier: the first to be loaded wins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline_platform.core.rejections import Int32s, Problem, Reason, RejectionList, Rejections
from pipeline_platform.core.times import Int64s

MAX_LENGTH = 200  # characters
REPEATED = Problem(Reason.DUPLICATE_EVENT_ID, "event_id", "an event with this event_id has been loaded already")
NOBODY = np.iinfo(np.int64).min

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class EventIds:
    """The ids of some events, a row each: where the event stood, from when its id counts, and the id as Arrow text."""

    entry: Int32s
    line: Int32s
    counts_from_us: Int64s
    values: pa.Array

    def __len__(self) -> int:
        return len(self.entry)

    def where(self, keep: Bools) -> EventIds:
        """The rows of the mask."""
        return EventIds(
            self.entry[keep], self.line[keep], self.counts_from_us[keep], self.values.filter(pa.array(keep, pa.bool_()))
        )

    def counting_from(self, moment_us: int) -> EventIds:
        """The same ids, all of them counting from that moment."""
        return replace(self, counts_from_us=np.full(len(self), moment_us, np.int64))


def joined(first: EventIds, second: EventIds) -> EventIds:
    """The rows of both, those of `first` before those of `second`."""
    return EventIds(
        np.concatenate([first.entry, second.entry]),
        np.concatenate([first.line, second.line]),
        np.concatenate([first.counts_from_us, second.counts_from_us]),
        pa.chunked_array([first.values, second.values], pa.string()).combine_chunks(),
    )


def with_repeats(rejections: Rejections, repeats: EventIds) -> Rejections:
    """The rejections, and the events that repeat an id."""
    listed = RejectionList()
    listed.add_many(repeats.entry, repeats.line, REPEATED)
    return listed.freeze(after=rejections)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a batch asks for: its different ids, ascending by their bytes, each with from when it would count
    first and last.

    `code[i]` is the place of event i's id among them; `order` has the events by entry and line.
    """

    values: pa.Array
    first_us: Int64s
    last_us: Int64s
    code: npt.NDArray[np.intp]
    order: npt.NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.first_us)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Which events have their id to themselves, and the ids (by place) that ended up taken by a later event than the
    one that asked first: within one batch an id may become free again."""

    keep: Bools
    moved: npt.NDArray[np.intp]
    moved_us: Int64s


def claim_of(ids: EventIds) -> Claim:
    """The different ids among some events."""
    order = np.lexsort((ids.line, ids.entry))
    encoded = ids.values.dictionary_encode()
    ascending = pc.sort_indices(encoded.dictionary).to_numpy().astype(np.intp)
    place = np.empty(len(ascending), np.intp)
    place[ascending] = np.arange(len(ascending))
    code = place[encoded.indices.to_numpy()]
    first_us, last_us = np.empty((2, len(ascending)), np.int64)
    # Of an index that occurs more than once the last value stays.
    last_us[code[order]] = ids.counts_from_us[order]
    first_us[code[order[::-1]]] = ids.counts_from_us[order[::-1]]
    return Claim(encoded.dictionary.take(pa.array(ascending)), first_us, last_us, code, order)


def judge(ids: EventIds, claim: Claim, free_from_us: Int64s, period_us: int) -> Verdict:
    """Gives each id to the first of its events, by entry and line, that finds it free.

    `free_from_us` says from when each id of the claim is free: its `first_us` where the warehouse gave it to the batch,
    else when the time of whoever has it is over, which is later.
    """
    if len(claim) == len(ids):
        return Verdict(ids.counts_from_us >= free_from_us[claim.code], np.empty(0, np.intp), np.empty(0, np.int64))
    keep = np.zeros(len(ids), bool)
    free_from_us, rest = free_from_us.copy(), claim.order
    given_us = np.where(free_from_us == claim.first_us, claim.first_us, NOBODY)
    taken_us = given_us.copy()
    while len(rest := rest[ids.counts_from_us[rest] >= free_from_us[claim.code[rest]]]):
        codes, at = np.unique(claim.code[rest], return_index=True)
        winners = rest[at]
        keep[winners] = True
        taken_us[codes] = ids.counts_from_us[winners]
        free_from_us[codes] = taken_us[codes] + period_us
    moved = np.flatnonzero(taken_us != given_us)
    return Verdict(keep, moved, taken_us[moved])
