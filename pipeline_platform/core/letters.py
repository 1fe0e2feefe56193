"""Dead letters as events again: the requests they came in, rebuilt with the old ids, and cut into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline_platform.core.edits import Edit, Editor
from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.core.isolation import NOTHING, instead
from pipeline_platform.core.rejections import Problem, Reason, Rejections
from pipeline_platform.core.times import Int64s
from pipeline_platform.errors import EditError


class DeadEvent(NamedTuple):
    """A dead letter as a replay needs it: its number, where it stood, what it is, and what it was refused for."""

    id: int
    entry: EntryId
    line: int
    payload: str
    reason: str
    field: str


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """The requests of some dead letters. Line `n` of entry `e` is the letter `ids[firsts[e] + n]`.

    `unedited`: the lines that the edit did not apply to, and why; nothing stands in their place.
    """

    entries: tuple[Entry, ...]
    ids: Int64s
    firsts: Int64s
    unedited: Mapping[tuple[int, int], Problem]

    def refused(self, rejections: Rejections) -> Int64s:
        """The letters of the rejected lines, in their order."""
        return np.asarray(self.ids[self.firsts[rejections.entry] + rejections.line], np.int64)

    def with_unedited(self, rejections: Rejections) -> Rejections:
        """The rejections, with what the edit says of the lines that it did not apply to."""
        return instead(rejections, self.unedited) if self.unedited else rejections


def rebuild(letters: Iterable[DeadEvent], edit: Edit | None = None) -> Rebuilt:
    """The requests that the letters came in, with only their lines, ascending: each has its id and so its clock again.

    A letter that the edit does not apply to is not tried without it: it is refused again, for its old reason.
    """
    ordered = sorted(letters, key=lambda letter: (letter.entry, letter.line, letter.id))
    editor = Editor(edit) if edit is not None else None
    entries: list[Entry] = []
    firsts: list[int] = []
    unedited: dict[tuple[int, int], Problem] = {}
    lines: list[bytes] = []
    for number, letter in enumerate(ordered):
        if not number or letter.entry != ordered[number - 1].entry:
            firsts.append(number)
            lines = []
        data = _line(letter.payload)
        if editor is not None:
            try:
                data = editor.apply(data)
            except EditError as error:
                problem = Problem(Reason(letter.reason), letter.field, f"the edit does not apply: {error}"[:500])
                unedited[len(firsts) - 1, len(lines)] = problem
                data = NOTHING
        lines.append(data)
        if number + 1 == len(ordered) or ordered[number + 1].entry != letter.entry:
            entries.append(Entry(letter.entry, len(lines), b"".join(line + b"\n" for line in lines)))
    ids = np.fromiter((letter.id for letter in ordered), np.int64, len(ordered))
    return Rebuilt(tuple(entries), ids, np.array(firsts, np.int64), unedited)


def _line(payload: str) -> bytes:
    """One line: between the values of JSON a line's end is a space, within a text it must not be."""
    return payload.replace("\n", " ").encode("utf-8", "backslashreplace") or b" "


class Waiting(NamedTuple):
    """A dead letter that is to be replayed: what a batch of them is cut by."""

    id: int
    stream: str
    poison: bool
    entry: EntryId
    bytes: int


def cut_letters(letters: Sequence[Waiting], *, max_letters: int, max_bytes: int) -> Iterator[tuple[Waiting, ...]]:
    """Batches of letters that follow each other, of one stream each and within the bounds.

    Letters that were refused as poison are kept apart: their batch is tried with care, and nobody waits for it.
    """
    held: list[Waiting] = []
    size = 0
    for letter in letters:
        alike = held and (held[0].stream, held[0].poison) == (letter.stream, letter.poison)
        if held and (not alike or len(held) == max_letters or size + letter.bytes > max_bytes):
            yield tuple(held)
            held, size = [], 0
        held.append(letter)
        size += letter.bytes
    if held:
        yield tuple(held)
