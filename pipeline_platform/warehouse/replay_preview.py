"""The dry run of a replay: the letters are tried in memory, and nothing is changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.event_ids import joined, with_repeats
from pipeline_platform.core.events import decode
from pipeline_platform.core.letters import DeadEvent, rebuild
from pipeline_platform.core.lines import lines_of
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.transforms import drop_negatives
from pipeline_platform.core.validation import validate
from pipeline_platform.warehouse.dead_letters import LetterFilter, replayable_letters
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.event_ids import free_now
from pipeline_platform.warehouse.replay_batches import dead_events, event_columns
from pipeline_platform.warehouse.schema import dead_letters

MOST_BYTES = 32 * 2**20  # payloads that are looked at
EXAMPLES = 5  # of each outcome
SHOWN = 500  # characters of an example's payload
POISON = "poison"


@dataclass(frozen=True, slots=True)
class Example:
    """A letter of a preview: the beginning of its payload, and of what the edit makes of it (None: it is as it was).

    `outcome` is pass, or the reason that it would be refused for with the field and message.
    """

    id: int
    stream: str
    before: str
    after: str | None
    outcome: str
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Preview:
    """What a replay would do: `matched` open letters, of which `tried` were tried: all, or a sample.

    tried = would_pass + negative + sum(would_fail): what would be in the facts, would be dropped and counted for a
    negative measure, would be refused again by reason. `poison` letters among those looked at were not tried: what
    they do to a process only a run may find out.
    """

    matched: int
    tried: int
    would_pass: int
    negative: int
    would_fail: Mapping[str, int]
    poison: int
    examples: tuple[Example, ...]

    @property
    def sampled(self) -> bool:
        """Whether there are more letters than were looked at."""
        return self.tried + self.poison < self.matched


def preview(
    engine: sa.Engine,
    specs: Mapping[str, StreamSpec],
    which: LetterFilter,
    edit: Edit | None = None,
    *,
    limit: int = 10_000,
) -> Preview:
    """Tries the matching open letters of the declared streams without changing anything; above `limit` a sample.

    Raises PermanentError for a filter whose states leave out `open`.
    """
    letters = replayable_letters(which, specs.keys())
    with warehouse_errors(), engine.connect() as connection:
        matched = int(connection.scalar(sa.select(sa.func.count()).select_from(dead_letters).where(letters)) or 0)
        by_stream, poison = _sample(connection, letters, limit)
    passing = negative = 0
    failing: Counter[str] = Counter()
    examples: list[Example] = []
    for stream, events in by_stream.items():
        spec = specs[stream]
        rebuilt = rebuild(events, edit)
        valid = validate(decode(rebuilt.entries, spec), rebuilt.entries, spec)
        left = drop_negatives(valid.columns, spec)
        rejections = rebuilt.with_unedited(valid.rejections)
        kept = np.ones(len(left.columns) + len(left.dropped_entry), bool)
        if left.columns.ids is not None and left.dropped_ids is not None:
            ids = joined(left.columns.ids, left.dropped_ids)
            kept = free_now(engine, spec, ids)
            rejections = with_repeats(rejections, ids.where(~kept))
        passing += int(np.count_nonzero(kept[: len(left.columns)]))
        negative += int(np.count_nonzero(kept[len(left.columns) :]))
        failing.update(rejections.counts())
        refused = dict(zip(rebuilt.refused(rejections).tolist(), rejections.kind.tolist(), strict=True))
        lines = [line for entry in rebuilt.entries for line in lines_of(entry.data)]
        after = dict(zip(rebuilt.ids.tolist(), lines, strict=True)) if edit is not None else {}
        for entry, line in rebuilt.unedited:
            del after[int(rebuilt.ids[rebuilt.firsts[entry] + line])]
        shown: Counter[str] = Counter()
        for event in events:
            problem = rejections.problems[refused[event.id]] if event.id in refused else None
            outcome = problem.reason.value if problem else "pass"
            shown[outcome] += 1
            if shown[outcome] > EXAMPLES:
                continue
            edited = after[event.id].decode("utf-8", "replace")[:SHOWN] if event.id in after else None
            examples.append(
                Example(
                    event.id,
                    stream,
                    event.payload[:SHOWN],
                    edited,
                    outcome,
                    problem.field if problem else "",
                    problem.message if problem else "",
                )
            )
    tried = sum(map(len, by_stream.values()))
    return Preview(matched, tried, passing, negative, dict(failing.most_common()), poison, tuple(examples))


def _sample(
    connection: sa.Connection, letters: sa.ColumnElement[bool], limit: int
) -> tuple[dict[str, list[DeadEvent]], int]:
    """At most `limit` of the letters by stream, and how many of those looked at are poison, which are left out.

    In the order of a hash of their numbers: old and new ones, of all requests, and the same ones when asked again.
    """
    query = (
        sa.select(dead_letters.c.stream, *event_columns())
        .where(letters)
        .order_by(sa.func.hashint8(dead_letters.c.id))
        .limit(limit)
    )
    rows: dict[str, list[Any]] = {}
    size = poison = 0
    for row in connection.execution_options(yield_per=500).execute(query):
        if row.reason == POISON:
            poison += 1
            continue
        size += len(row.payload)
        if size > MOST_BYTES and rows:
            break
        rows.setdefault(row.stream, []).append(row)
    return {stream: dead_events(found) for stream, found in rows.items()}, poison
