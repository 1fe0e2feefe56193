"""Candles in bulk: what is newer wins, what is closed stays, and what is known already is not written again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from pipeline_platform.core.prices import Candle, Instrument
from pipeline_platform.warehouse.engine import warehouse_errors

ROWS = 1_000  # candles in one statement and transaction: a page of the most generous source

# An open candle never replaces a closed one; of two alike in that, the one that was asked for later wins, if any value
# differs. So a rerun writes nothing, and the order of runs does not matter, as long as a source does not go back to
# values that it has corrected before. Ordered by key: two runs wait for each other rather than deadlock.
_UPSERT = """
insert into price_candles as t (
    source, symbol, "interval", open_time, open, high, low, close, volume, closed, canonical, fetched_at, run_id
)
select source, symbol, "interval", open_time, open, high, low, close, volume, closed, canonical, %(fetched_at)s,
    %(run_id)s
from unnest(
    %(source)s::text[], %(symbol)s::text[], %(interval)s::text[], %(open_time)s::timestamptz[], %(open)s::numeric[],
    %(high)s::numeric[], %(low)s::numeric[], %(close)s::numeric[], %(volume)s::numeric[], %(closed)s::boolean[],
    %(canonical)s::text[]
) as b (source, symbol, "interval", open_time, open, high, low, close, volume, closed, canonical)
order by source, symbol, "interval", open_time
on conflict (source, symbol, "interval", open_time) do update set
    open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
    volume = excluded.volume, closed = excluded.closed, canonical = excluded.canonical,
    fetched_at = excluded.fetched_at, run_id = excluded.run_id
where (excluded.closed and not t.closed)
    or (excluded.closed = t.closed and excluded.fetched_at > t.fetched_at
        and (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume)
            is distinct from (t.open, t.high, t.low, t.close, t.volume))
returning (xmax = 0) as inserted
"""


@dataclass(frozen=True)
class Written:
    """What an upsert came to. `unchanged` rows were there already, or there was something newer."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(self.inserted + other.inserted, self.updated + other.updated, self.unchanged + other.unchanged)

    @property
    def rows(self) -> int:
        """All rows that were given."""
        return self.inserted + self.updated + self.unchanged


def upsert(
    engine: sa.Engine,
    candles: Iterable[Candle],
    *,
    fetched_at: datetime,
    run_id: str | None = None,
    canonical: Mapping[Instrument, str] | None = None,
) -> Written:
    """Writes candles of one answer, asked for at `fetched_at`. Each thousand is a transaction: what is in stays in.

    Of candles with one key the last counts. Raises WarehouseUnavailableError, TransientError or PermanentError.
    """
    written, names = Written(), canonical or {}
    rows = iter(candles)
    while chunk := list(itertools.islice(rows, ROWS)):
        given = {(each.source, each.symbol, each.interval, each.open_time): each for each in chunk}
        parameters = _arrays(list(given.values()), names) | {"fetched_at": fetched_at, "run_id": run_id}
        with warehouse_errors(), engine.begin() as connection:
            raw = connection.connection.cursor()
            raw.execute(_UPSERT, parameters)
            news = [bool(inserted) for (inserted,) in raw.fetchall()]
        written += Written(sum(news), len(news) - sum(news), len(given) - len(news))
    return written


def _arrays(candles: list[Candle], names: Mapping[Instrument, str]) -> dict[str, object]:
    plain = ("source", "symbol", "open_time", "open", "high", "low", "close", "volume", "closed")
    arrays: dict[str, object] = {name: [getattr(each, name) for each in candles] for name in plain}
    arrays["interval"] = [each.interval.value for each in candles]
    arrays["canonical"] = [names.get(Instrument(each.source, each.symbol)) for each in candles]
    return arrays
