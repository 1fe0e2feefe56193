"""--max-rejected: an upload that is mostly rejected ends here, before it opens the stream's breaker for everybody."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.core.breaker import BreakerLimits, Counts, trips
from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.core.rejections import Problem, Reason
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError

AFTER = 500  # rows: so many rejects as the share is of them are never too many
FIRST = 10  # rows: when so many and all of the first batch are rejected, it is the file


class _Bad(NamedTuple):
    """A rejected row and why."""

    row: Row
    problem: Problem


class RejectCounter:
    """When so many of the rows to be sent are rejects that the breaker would open if there were no others.

    The breaker looks at the newest batches that hold its window's events, wherever those begin. So every run of rows
    that is as long as the window, and all of them together, may have `share` of rejects. `share` of 1 is no bound.
    """

    def __init__(self, share: float) -> None:
        self._limits = BreakerLimits(share=share, minimum=round(share * AFTER))
        self._all = Counts(0, 0)
        self._marks: deque[Counts] = deque([self._all])  # the totals at the end of each batch within the window
        self._lowest = self._all  # the one before the window from which on the share of rejects is the greatest

    def add(self, events: int, rejected: int) -> Counts | None:
        """Counts a batch; the run of rows that has too many rejects, None where there is none."""
        self._all = total = Counts(self._all.events + events, self._all.rejected + rejected)
        self._marks.append(total)
        while total.events - self._marks[0].events >= self._limits.window:
            self._lowest = min(self._lowest, self._marks.popleft(), key=self._excess)
        run = Counts(total.events - self._lowest.events, total.rejected - self._lowest.rejected)
        return run if trips(run, self._limits) else None

    def _excess(self, counts: Counts) -> float:
        return counts.rejected - self._limits.share * counts.events


@dataclass
class RejectLimit:
    """Holds the rows of an upload, before they are sent, to the contract by the code that the run uses."""

    spec: StreamSpec
    share: float
    name: str
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    def __post_init__(self) -> None:
        self._counter = RejectCounter(self.share)
        self._waiting: list[Row] = []
        self._first: dict[Problem, Row] = {}
        self._counts: dict[Problem, int] = {}
        self._begun = False

    def judge(self, rows: Sequence[Row]) -> None:
        """Raises PermanentError when too many rows, these included, are rejects."""
        self._waiting.extend(rows)
        if self.share >= 1 or (not self._begun and len(self._waiting) < FIRST):
            return
        bad, count = _rejected(self._waiting, self.spec, self.now_ms()), len(self._waiting)
        for row, problem in bad:
            self._first.setdefault(problem, row)
            self._counts[problem] = self._counts.get(problem, 0) + 1
        run = self._counter.add(count, len(bad))
        if not self._begun and len(bad) == count:
            run = Counts(count, count)
        self._begun, last = True, self._waiting[-1]
        self._waiting = []
        if run is not None:
            raise PermanentError(self._words(run, last))

    def _words(self, run: Counts, last: Row) -> str:
        most = max(self._counts, key=lambda problem: self._counts[problem])
        field = f"{most.field} " if most.field else ""
        return (
            f"{self.name}: {run.rejected:,} of {run.events:,} rows up to {last.unit} {last.number} break the "
            f"contract of {self.spec.name}, most of them because {field}{most.message} ({most.reason}), first in "
            f"{last.unit} {self._first[most].number}. The upload ends before they hold up everybody's events: "
            "mend the file, or pass --max-rejected 100."
        )


def _rejected(rows: Sequence[Row], spec: StreamSpec, now_ms: int) -> list[_Bad]:
    """The rows that would be left out or become dead letters."""
    # Not at the top: for a few rows pandas is not worth its start.
    from pipeline_platform.core.events import decode
    from pipeline_platform.core.validation import validate

    bad = [_Bad(row, Problem(Reason.MALFORMED, "", row.problem)) for row in rows if row.problem]
    good = [row for row in rows if not row.problem]
    if good:
        entry = Entry(EntryId(now_ms, 0), len(good), b"\n".join(row.data for row in good))
        found = validate(decode([entry], spec), [entry], spec).rejections
        for line, kind in zip(found.line.tolist(), found.kind.tolist(), strict=True):
            bad.append(_Bad(good[min(line, len(good) - 1)], found.problems[kind]))
    return bad
