"""What a run knows of symbols that their sources refuse: whom it leaves out, and what it says of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

import sqlalchemy as sa

from pipeline_platform.core.parking import AskedFor
from pipeline_platform.core.prices import Instrument
from pipeline_platform.warehouse.refusals import in_words, known_refusals, note_answered, note_refused


class Refused:
    """The symbols that are refused when they are asked for quotes, or for candles."""

    def __init__(self, engine: sa.Engine, asked_for: AskedFor) -> None:
        self._engine, self._asked_for = engine, asked_for
        self._known = known_refusals(engine, asked_for)

    def due(self, instruments: Iterable[Instrument]) -> list[Instrument]:
        """Those that are to be asked for now: a parked one is not, but once a day."""
        now = datetime.now(UTC)
        return [each for each in instruments if each not in self._known or self._known[each].due(now)]

    def refused(self, instrument: Instrument, said: str) -> str:
        """Notes one more refusal; gives what to say of it where the symbol is parked."""
        known = note_refused(self._engine, instrument, self._asked_for, said, datetime.now(UTC))
        self._known[instrument] = known
        return in_words(known) if known.parked_at is not None else ""

    def answered(self, instruments: Collection[Instrument]) -> None:
        """Notes that these are known to their sources."""
        if back := [each for each in instruments if each in self._known]:
            note_answered(self._engine, back, self._asked_for)
            for each in back:
                del self._known[each]

    @property
    def parked(self) -> dict[Instrument, str]:
        """What to say of those that are parked."""
        return {name: in_words(each) for name, each in self._known.items() if each.parked_at is not None}


def parked_symbols(engine: sa.Engine, asked_for: AskedFor) -> dict[Instrument, str]:
    """What to say of each symbol that is parked."""
    return Refused(engine, asked_for).parked
