"""An answer's records: those that can be used, and those at odds, each with its time and what is wrong with it.

One record at odds condemns nobody else. An answer without any that can be used has another shape: when there are
several records, or when it is their structure that differs (a member too many, a name that is missing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, TypeVar

from pipeline_platform.errors import SourceShapeError
from pipeline_platform.sources.shapes import Node

SEVERAL = 3  # so many records that are wrong alike, and none that is right, are not by chance

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Odd:
    """A record at odds: its time, where that can be read, and why."""

    at: datetime | None
    why: str


@dataclass(frozen=True, slots=True)
class Sorted(Generic[T]):
    """The records of one answer."""

    usable: list[T] = field(default_factory=list)
    odd: list[Odd] = field(default_factory=list)


def sort_out(
    rows: Iterable[Node], opened: Callable[[Node], datetime], read: Callable[[datetime, Node], T | None]
) -> Sorted[T]:
    """Reads each record: `opened` its time, `read` what it holds (None: it is not asked for).

    Raises SourceShapeError when the answer has another shape.
    """
    found: Sorted[T] = Sorted()
    errors: list[SourceShapeError] = []
    for row in rows:
        at = None
        try:
            at = opened(row)
            value = read(at, row)
        except SourceShapeError as error:
            errors.append(error)
            found.odd.append(Odd(at, error.why))
        else:
            if value is not None:
                found.usable.append(value)
    if not found.usable:
        refuse_if_changed(errors)
    return found


def refuse_if_changed(errors: Sequence[SourceShapeError]) -> None:
    """Raises the first of what is wrong with all records of an answer, if that is another shape."""
    if len(errors) >= SEVERAL or any(each.structure for each in errors):
        raise errors[0]
