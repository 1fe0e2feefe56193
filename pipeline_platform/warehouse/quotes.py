"""Quotes: their history, which a retention bounds, and the latest of each symbol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from pipeline_platform.core.prices import Instrument, Quote
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.price_tables import quotes


def add_quotes(
    engine: sa.Engine,
    found: Iterable[Quote],
    *,
    fetched_at: datetime,
    run_id: str | None = None,
    canonical: Mapping[Instrument, str] | None = None,
) -> int:
    """Adds quotes and says how many were new. A price that a source gave before, of the same time, stays as it was.

    That it was fetched again is noted, so that an old price is not taken for one that nobody has asked about.
    """
    names = canonical or {}
    rows = {
        (each.source, each.symbol, each.at): {
            "source": each.source,
            "symbol": each.symbol,
            "at": each.at,
            "price": each.price,
            "canonical": names.get(Instrument(each.source, each.symbol)),
            "fetched_at": fetched_at,
            "run_id": run_id,
        }
        for each in found
    }
    if not rows:
        return 0
    with warehouse_errors(), engine.begin() as connection:
        added = insert(quotes).values(list(rows.values()))
        again = added.on_conflict_do_update(
            index_elements=["source", "symbol", "at"],
            set_={"fetched_at": added.excluded.fetched_at},
            where=quotes.c.fetched_at < added.excluded.fetched_at,
        )
        inserted = sa.literal_column("xmax = 0", sa.Boolean)
        return sum(connection.execute(again.returning(inserted)).scalars())


def purge_quotes(engine: sa.Engine, before: datetime) -> int:
    """Deletes quotes fetched before that, but never a symbol's latest; says how many."""
    newer = quotes.alias()
    superseded = sa.exists().where(
        newer.c.source == quotes.c.source, newer.c.symbol == quotes.c.symbol, newer.c.at > quotes.c.at
    )
    with warehouse_errors(), engine.begin() as connection:
        return connection.execute(sa.delete(quotes).where(quotes.c.fetched_at < before, superseded)).rowcount
