"""Finding the lines that a batch cannot be processed with, by halving; and the batch without them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline_platform.core.entries import Entry
from pipeline_platform.core.lines import lines_of
from pipeline_platform.core.rejections import Problem, Reason, RejectionList, Rejections

# In place of a line that must not be looked at: no event, and harmless.
NOTHING = b"0"


@dataclass(frozen=True, slots=True)
class Bad:
    """The lines [start, end) of a batch, numbered through, and what their processing met with."""

    start: int
    end: int
    message: str


def find_bad(
    lines: int, trial: Callable[[int, int], str | None], go_on: Callable[[int], bool]
) -> tuple[list[Bad], list[tuple[int, int]]]:
    """The bad ones among `lines` lines, one by one and ascending, and the ranges that are not decided.

    `trial(start, end)` processes the lines [start, end) alone; None when that went well, else what it met with. Nothing
    is bad for one trial: what kills a process may be something else than the line. `go_on` is asked before each range,
    with how many bad lines there are so far; from its first no on, nothing is tried.
    """
    found: list[Bad] = []
    ahead = [(0, lines)] if lines else []
    while ahead and go_on(len(found)):
        start, end = ahead.pop()
        message = trial(start, end)
        if message is None:
            continue
        if end - start > 1:
            middle = (start + end) // 2
            ahead += [(middle, end), (start, middle)]
        elif (again := trial(start, end)) is not None:
            found.append(Bad(start, end, again))
    return found, ahead[::-1]


def cut(entries: Sequence[Entry], start: int, end: int) -> tuple[Entry, ...]:
    """The lines [start, end) of the batch, as entries."""
    parts = []
    first = 0
    for entry in entries:
        low, high = max(start - first, 0), min(end - first, entry.count)
        if low == 0 and high == entry.count:
            parts.append(entry)
        elif low < high:
            data = b"".join(line + b"\n" for line in lines_of(entry.data)[low:high])
            parts.append(replace(entry, count=high - low, data=data))
        first += entry.count
    return tuple(parts)


def without(entries: Sequence[Entry], bad: Sequence[Bad]) -> tuple[tuple[Entry, ...], dict[tuple[int, int], str]]:
    """The entries with nothing in the place of their bad lines, and the message of each by (entry, line)."""
    firsts = [0, *itertools.accumulate(entry.count for entry in entries)]
    messages: dict[tuple[int, int], str] = {}
    for part in bad:
        for number in range(part.start, part.end):
            entry = int(np.searchsorted(firsts, number, side="right")) - 1
            messages[entry, number - firsts[entry]] = part.message
    cleaned = list(entries)
    for index in {entry for entry, _ in messages}:
        lines = lines_of(entries[index].data)
        kept = (NOTHING if (index, number) in messages else line for number, line in enumerate(lines))
        cleaned[index] = replace(entries[index], data=b"".join(line + b"\n" for line in kept))
    return tuple(cleaned), messages


def as_poison(rejections: Rejections, messages: Mapping[tuple[int, int], str]) -> Rejections:
    """The rejections with reason `poison` for the lines of `messages`, whatever they were rejected for."""
    return instead(rejections, {at: Problem(Reason.POISON, "", said[:500]) for at, said in messages.items()})


def instead(rejections: Rejections, problems: Mapping[tuple[int, int], Problem]) -> Rejections:
    """The rejections with these problems of lines by (entry, line), whatever the lines were rejected for."""
    listed = RejectionList()
    for entry, line, kind in zip(
        rejections.entry.tolist(), rejections.line.tolist(), rejections.kind.tolist(), strict=True
    ):
        if (entry, line) not in problems:
            listed.add(entry, line, rejections.problems[kind])
    for (entry, line), problem in problems.items():
        listed.add(entry, line, problem)
    return listed.freeze()


def all_poison(entries: Sequence[Entry], message: str) -> Rejections:
    """Every line of the entries rejected as poison."""
    listed = RejectionList()
    for number, entry in enumerate(entries):
        lines = np.arange(entry.count, dtype=np.int32)
        listed.add_many(np.full(entry.count, number, np.int32), lines, Problem(Reason.POISON, "", message[:500]))
    return listed.freeze()
