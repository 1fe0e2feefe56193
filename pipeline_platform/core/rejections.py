"""Why an event was not loaded, kept columnar so that a million rejects cost megabytes, not gigabytes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Int32s = npt.NDArray[np.int32]


class Reason(StrEnum):
    """The reasons of `dead_letters.reason`."""

    MALFORMED = "malformed"
    UNKNOWN_FIELD = "unknown_field"
    MISSING_FIELD = "missing_field"
    BAD_TYPE = "bad_type"
    OUT_OF_RANGE = "out_of_range"
    TS_OUT_OF_RANGE = "ts_out_of_range"
    NOT_FINITE = "not_finite"
    NEGATIVE_REJECTED = "negative_rejected"
    DUPLICATE_EVENT_ID = "duplicate_event_id"
    POISON = "poison"


class Problem(NamedTuple):
    """A kind of rejection: the reason, the field ("" for the whole event) and what to do about it."""

    reason: Reason
    field: str
    message: str


@dataclass(frozen=True, slots=True)
class Rejections:
    """Rejected lines: `entry[i]`, `line[i]` (0-based) for `problems[kind[i]]`."""

    entry: Int32s
    line: Int32s
    kind: Int32s
    problems: tuple[Problem, ...]

    def __len__(self) -> int:
        return len(self.entry)

    def counts(self) -> dict[str, int]:
        """Rejected events by reason."""
        totals: dict[str, int] = {}
        for problem, count in zip(self.problems, np.bincount(self.kind, minlength=len(self.problems)), strict=True):
            if count:
                totals[problem.reason.value] = totals.get(problem.reason.value, 0) + int(count)
        return totals


class RejectionList:
    """Collects rejections, one at a time or by mask."""

    def __init__(self) -> None:
        self._problems: dict[Problem, int] = {}
        self._parts: list[tuple[Int32s, Int32s, int]] = []
        self._single: list[tuple[int, int, int]] = []

    def _kind(self, problem: Problem) -> int:
        return self._problems.setdefault(problem, len(self._problems))

    def add(self, entry: int, line: int, problem: Problem) -> None:
        """One rejected line."""
        self._single.append((entry, line, self._kind(problem)))

    def add_many(self, entry: Int32s, line: Int32s, problem: Problem) -> None:
        """Many lines rejected for the same problem."""
        if len(entry):
            self._parts.append((entry, line, self._kind(problem)))

    def freeze(self, *, after: Rejections | None = None) -> Rejections:
        """Everything collected, after the rejections of an earlier stage, ordered by entry and line."""
        problems = {problem: kind for kind, problem in enumerate(after.problems)} if after else {}
        entries, lines, kinds = ([after.entry], [after.line], [after.kind]) if after else ([], [], [])
        renumber = np.empty(len(self._problems), np.int32)
        for problem, kind in self._problems.items():
            renumber[kind] = problems.setdefault(problem, len(problems))
        if self._single:
            single = np.array(self._single, np.int32)
            entries.append(single[:, 0])
            lines.append(single[:, 1])
            kinds.append(renumber[single[:, 2]])
        for entry, line, kind in self._parts:
            entries.append(entry)
            lines.append(line)
            kinds.append(np.full(len(entry), renumber[kind], np.int32))
        if not entries:
            empty = np.empty(0, np.int32)
            return Rejections(empty, empty, empty, ())
        entry_all, line_all, kind_all = np.concatenate(entries), np.concatenate(lines), np.concatenate(kinds)
        order = np.lexsort((line_all, entry_all))
        return Rejections(entry_all[order], line_all[order], kind_all[order], tuple(problems))
