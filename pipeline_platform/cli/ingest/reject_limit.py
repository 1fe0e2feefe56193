"""--max-rejected: an upload that is mostly rejected ends here, before it opens the stream's breaker for everybody."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.cli.ingest.reasons import because
from pipeline_platform.core.breaker import BreakerLimits, Counts, trips
from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.core.rejections import Problem, Reason
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError

AFTER = 500  # rows: so many rejects as the share is of them are never too many
FIRST = 10  # rows: when so many and all so far are rejected, it is the file, however many follow
_MEND = "mend the file, or pass --max-rejected 100."


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
        self.total = Counts(0, 0)
        self._marks: deque[Counts] = deque([self.total])  # the totals at the end of each batch within the window
        self._lowest = self.total  # the one before the window from which on the share of rejects is the greatest

    def add(self, events: int, rejected: int) -> Counts | None:
        """Counts a batch; the run of rows that has too many rejects, None where there is none."""
        self.total = total = Counts(self.total.events + events, self.total.rejected + rejected)
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
    skip_bad: bool = False
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000

    def __post_init__(self) -> None:
        self._counter = RejectCounter(self.share)
        self._last: Row | None = None
        self._first: dict[Problem, Row] = {}
        self._counts: dict[Problem, int] = {}

    def judge(self, rows: Sequence[Row]) -> bool:
        """Whether these rows may be sent, and those that had to wait; while all of them are rejects they wait.

        Raises PermanentError when too many, these included, are rejects.
        """
        bad = _rejected(rows, self.spec, self.now_ms())
        for row, problem in bad:
            self._first.setdefault(problem, row)
            self._counts[problem] = self._counts.get(problem, 0) + 1
        self._last = rows[-1]
        run = self._counter.add(len(rows), len(bad))
        if run is not None:
            raise PermanentError(f"{self._words(run)} The upload ends before they hold up everybody's events: {_MEND}")
        total = self._counter.total
        waits = self.share < 1 and total.rejected == total.events and not self._is_named()
        if waits and total.events >= FIRST:
            self.end()
        return not waits

    def end(self) -> None:
        """Raises PermanentError: no more rows come, and all that there are, waiting, are rejects."""
        raise PermanentError(f"{self._words(self._counter.total)} That is all of them: {_MEND}")

    def summary(self) -> str:
        """What to say of the rows that were sent and become dead letters; nothing where there is none."""
        letters = {problem: count for problem, count in self._counts.items() if not _is_refused(problem)}
        if not letters:
            return ""
        events = self._counter.total.events
        return (
            f"{sum(letters.values()):,} of {events:,} rows break the contract of {self.spec.name} and become "
            f"dead letters, {self._most(letters)}; `pipeline-platform dlq list --stream {self.spec.name}` shows them."
        )

    def _is_named(self) -> bool:
        """Whether one of a few rows is refused by name anyway, when there is nobody to leave it out."""
        return self._counter.total.events < FIRST and not self.skip_bad and any(map(_is_refused, self._counts))

    def _words(self, run: Counts) -> str:
        last = f" up to {self._last.unit} {self._last.number}" if self._last else ""
        return (
            f"{self.name}: {run.rejected:,} of {run.events:,} rows{last} break the contract of {self.spec.name}, "
            f"{self._most(self._counts)}."
        )

    def _most(self, counts: dict[Problem, int]) -> str:
        most = max(counts, key=lambda problem: counts[problem])
        row = self._first[most]
        return f"most of them {because(most.field, most.message)} ({most.reason}), first in {row.unit} {row.number}"


def _is_refused(problem: Problem) -> bool:
    """Whether such a row is no event at all: it is refused or left out, and never becomes a dead letter."""
    return problem.reason is Reason.MALFORMED and not problem.field


def _rejected(rows: Sequence[Row], spec: StreamSpec, now_ms: int) -> list[_Bad]:
    """The rows that would be left out or become dead letters."""
    # Not at the top: pandas takes its time to start, and many a command imports this for nothing.
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
