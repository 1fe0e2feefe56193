"""Symbols that their sources refuse: remembered until they answer; after three days parked, with one alert."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

import sqlalchemy as sa

from pipeline_platform.core.parking import PARKED_AFTER, AskedFor, Refusal, refused
from pipeline_platform.core.price_partitions import instrument_key
from pipeline_platform.core.prices import Instrument
from pipeline_platform.warehouse.alerts import Alert, raise_alert, resolve_alert
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.price_tables import refusals
from pipeline_platform.warehouse.text import storable

ALERT = "symbol_parked"


def known_refusals(engine: sa.Engine, asked_for: AskedFor | None = None) -> dict[Instrument, Refusal]:
    """The symbols that are refused, with `asked_for` of that alone; of both the one that is parked."""
    query = sa.select(refusals).order_by(refusals.c.parked_at.nulls_first())
    if asked_for is not None:
        query = query.where(refusals.c.asked_for == asked_for)
    with warehouse_errors(), engine.connect() as connection:
        found = [_refusal(row) for row in connection.execute(query)]
    return {each.instrument: each for each in found}


def note_refused(engine: sa.Engine, instrument: Instrument, asked_for: AskedFor, said: str, now: datetime) -> Refusal:
    """Keeps one more refusal. With the one that parks the symbol goes an alert."""
    of_it = _of(instrument, asked_for)
    with warehouse_errors(), engine.begin() as connection:
        row = connection.execute(sa.select(refusals).where(of_it).with_for_update()).one_or_none()
        before = _refusal(row) if row is not None else None
        after = refused(before, instrument, asked_for, storable(said)[:500], now)
        values = {
            "refused_since": after.since,
            "refused_at": after.at,
            "times": after.times,
            "said": after.said,
            "parked_at": after.parked_at,
        }
        if before is None:
            own = {"source": instrument.source, "symbol": instrument.symbol, "asked_for": asked_for}
            connection.execute(sa.insert(refusals).values(**own, **values))
        else:
            connection.execute(sa.update(refusals).where(of_it).values(**values))
        if after.parked_at is not None and (before is None or before.parked_at is None):
            raise_alert(connection, _alert(after))
    return after


def note_answered(engine: sa.Engine, instruments: Iterable[Instrument], asked_for: AskedFor) -> None:
    """These are known to their sources again: nothing is remembered, and their alerts are over."""
    _forget(engine, [_of(each, asked_for) for each in instruments], "its source answers again")


def forget_others(engine: sa.Engine, planned: Collection[Instrument]) -> None:
    """What is not in the plan any more is nobody's concern."""
    gone = [each for each in known_refusals(engine) if each not in planned]
    _forget(engine, [_of(each) for each in gone], "it is not in prices.yaml any more, or its source is off")


def in_words(refusal: Refusal) -> str:
    """What a person is told of a symbol that is parked."""
    return (
        f"{instrument_key(refusal.instrument)} is parked since {refusal.parked_at:%Y-%m-%d %H:%M} UTC and asked for "
        f"once a day: {refusal.said}"
    )


def _forget(engine: sa.Engine, which: list[sa.ColumnElement[bool]], why: str) -> None:
    if not which:
        return
    with warehouse_errors(), engine.begin() as connection:
        gone = connection.execute(sa.delete(refusals).where(sa.or_(*which)).returning(*_NAME)).all()
        for each in {Instrument(*row) for row in gone}:
            left = sa.select(refusals.c.source).where(_of(each), refusals.c.parked_at.is_not(None))
            if connection.execute(left.limit(1)).first() is None:
                resolve_alert(connection, _key(each), why)


_NAME = (refusals.c.source, refusals.c.symbol)


def _of(instrument: Instrument, asked_for: AskedFor | None = None) -> sa.ColumnElement[bool]:
    own = sa.and_(refusals.c.source == instrument.source, refusals.c.symbol == instrument.symbol)
    return own if asked_for is None else sa.and_(own, refusals.c.asked_for == asked_for)


def _refusal(row: sa.Row[tuple[object, ...]]) -> Refusal:
    return Refusal(
        Instrument(row.source, row.symbol),
        row.asked_for,
        row.refused_since,
        row.refused_at,
        row.times,
        row.said,
        row.parked_at,
    )


def _key(instrument: Instrument) -> str:
    return f"parked/{instrument_key(instrument)}"


def _alert(refusal: Refusal) -> Alert:
    name = instrument_key(refusal.instrument)
    return Alert(
        key=_key(refusal.instrument),
        kind=ALERT,
        severity="warning",
        title=f"{name} is parked: its source has refused it for {PARKED_AFTER.days} days",
        body=f"{refusal.said} Refused {refusal.times} times since {refusal.since:%Y-%m-%d %H:%M} UTC, asked for "
        f"{refusal.asked_for}. It is asked for once a day now, and goes on by itself when the source answers. Correct "
        "its symbol in prices.yaml, or remove it.",
    )
