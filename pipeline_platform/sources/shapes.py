"""Strict readers of JSON answers: each names the source and the path of what is not as promised."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, NoReturn

from pipeline_platform.core.numbers import as_json
from pipeline_platform.core.prices import EPOCH
from pipeline_platform.errors import SourceShapeError

# A unit of time is told by its size: these are the first instants (in units since 1970) that must be in a finer one.
# Binance's files changed from milliseconds to microseconds on 2025-01-01.
_PER_SECOND = ((10**11, 1), (10**14, 10**3), (10**17, 10**6), (10**20, 10**9))
_SHOWN = 60  # characters of a wrong value
_LARGEST_EXPONENT = 30
ADVICE = "The source has changed: look for a newer version, or disable it in prices.yaml."


@dataclass(frozen=True, slots=True)
class Node:
    """A value of an answer and where it stands, such as `[3][4]` or `result.XXBTZUSD[0]`."""

    value: Any
    source: str
    path: str = ""

    def wrong(self, expected: str, *, structure: bool = False) -> NoReturn:
        """Raises SourceShapeError for this place."""
        shown = repr(self.value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."
        self.odd(f"should be {expected} and is {shown}", structure=structure)

    def odd(self, words: str, *, structure: bool = False) -> NoReturn:
        """Raises SourceShapeError for this place, in words of one's own."""
        why = f"{self.path or 'the whole answer'} {words}"
        message = f"{self.source} answered with a shape we do not know: {why}. {ADVICE}"
        raise SourceShapeError(message, why, structure=structure)

    def items(self, *, length: int | None = None, only: range | None = None) -> list[Node]:
        """The members of a list; with `length`, of exactly so many; with `only`, those with these numbers."""
        if not isinstance(self.value, list) or length not in (None, len(self.value)):
            self.wrong("a list" if length is None else f"a list of {length}", structure=True)
        numbers = range(len(self.value)) if only is None else only
        return [Node(self.value[number], self.source, f"{self.path}[{number}]") for number in numbers]

    def item(self, number: int) -> Node:
        """One member of a list that is long enough."""
        if not isinstance(self.value, list) or len(self.value) <= number:
            self.wrong("a list" if not number else f"a list of {number + 1} or more", structure=True)
        return Node(self.value[number], self.source, f"{self.path}[{number}]")

    def field(self, name: str) -> Node:
        """A member of an object that has to be there."""
        if not isinstance(self.value, dict):
            self.wrong("an object", structure=True)
        path = f"{self.path}.{name}" if self.path else name
        if name not in self.value:
            Node(None, self.source, path).odd("is missing", structure=True)
        return Node(self.value[name], self.source, path)

    def fields(self) -> Iterator[tuple[str, Node]]:
        """Every member of an object."""
        if not isinstance(self.value, dict):
            self.wrong("an object", structure=True)
        for name in self.value:
            yield name, self.field(name)

    def text(self) -> str:
        """A string."""
        if not isinstance(self.value, str):
            self.wrong("text")
        return self.value

    def decimal(self) -> Decimal:
        """A number, or text that is one: finite, and no larger than a price or volume can be."""
        value = self.value
        if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
            self.wrong("a number")
        written = as_json(value) if isinstance(value, str) else value
        if written is None:
            self.wrong("a number")
        try:
            number = Decimal(written)
        except InvalidOperation:
            self.wrong("a number")
        if not number.is_finite() or (number and abs(number.adjusted()) > _LARGEST_EXPONENT):
            self.wrong("a number of a usual size")
        return number

    def moment(self) -> datetime:
        """A time as a number since 1970, in seconds, milliseconds, microseconds or nanoseconds."""
        number = self.decimal()
        for end, per_second in _PER_SECOND:
            if 0 <= number < end:
                return EPOCH + timedelta(microseconds=int(number * 1_000_000 / per_second))
        return self.wrong("a time since 1970")

    def iso_moment(self) -> datetime:
        """A time as ISO 8601 text with its zone."""
        try:
            moment = datetime.fromisoformat(self.text())
        except ValueError:
            self.wrong("an ISO time")
        if moment.tzinfo is None:
            self.wrong("an ISO time with its zone")
        return moment.astimezone(UTC)

    def day(self) -> datetime:
        """The start of a UTC day, from YYYY-MM-DD."""
        try:
            day = date.fromisoformat(self.text())
        except ValueError:
            self.wrong("a date such as 2026-01-31")
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
