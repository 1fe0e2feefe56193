"""The batches of a replay: rows of the ledger whose events are dead letters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.entries import EntryId, Receipt
from pipeline_platform.core.letters import DeadEvent, Waiting, cut_letters
from pipeline_platform.errors import PermanentError
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.ledger_rows import BETWEEN_ATTEMPTS, PLAIN_FAILURES, LedgerRow
from pipeline_platform.warehouse.schema import assets, dead_letters, replays

BATCH_LETTERS = 50_000
BATCH_BYTES = 64 * 2**20

_EVENT = (
    *(dead_letters.c.id, dead_letters.c.receipt, dead_letters.c.line, dead_letters.c.payload),
    *(dead_letters.c.reason, dead_letters.c.field, dead_letters.c.received_at, dead_letters.c.first_failed_at),
)


def replay_asset(stream: str) -> str:
    """The asset key of a stream's replays in the ledger."""
    return f"replay/{stream}"


def read_letters(engine: sa.Engine, batch_id: int) -> list[DeadEvent]:
    """The letters that the batch replays and that are not settled yet."""
    query = sa.select(*_EVENT).where(*_of_batch(batch_id))
    with warehouse_errors(), engine.connect() as connection:
        return dead_events(connection.execute(query))


def edit_of(engine: sa.Engine, replay_id: int) -> Edit | None:
    """The edit that the replay was asked for with."""
    with warehouse_errors(), engine.connect() as connection:
        document = connection.scalar(sa.select(replays.c.edit).where(replays.c.id == replay_id))
    return Edit.parse(document) if document is not None else None


def event_columns() -> tuple[sa.Column[Any], ...]:
    """What `dead_events` needs of a letter."""
    return _EVENT


def dead_events(rows: Iterable[Any]) -> list[DeadEvent]:
    """Rows of `event_columns` as events."""
    entry_of = _entries()
    return [
        DeadEvent(
            row.id,
            entry_of(row.receipt, row.received_at or row.first_failed_at),
            row.line or 0,
            row.payload,
            row.reason,
            row.field or "",
        )
        for row in rows
    ]


def plan_replay(
    connection: sa.Connection, replay_id: int, letters: Iterable[Any], job_name_of: Callable[[str], str]
) -> int:
    """Takes the letters, which the caller has locked, and plans batches of them; returns how many there are.

    `letters` have id, stream, poison, receipt, at and bytes, and are ordered by stream, poison and request.
    """
    entry_of = _entries()
    waiting = [Waiting(row.id, row.stream, row.poison, entry_of(row.receipt, row.at), row.bytes) for row in letters]
    for part in cut_letters(waiting, max_letters=BATCH_LETTERS, max_bytes=BATCH_BYTES):
        stream = part[0].stream
        batch_id = connection.execute(_batch(part, replay_id, job_name_of(stream))).scalar_one()
        connection.execute(
            sa.update(dead_letters)
            .where(dead_letters.c.id == sa.any_(sa.literal([letter.id for letter in part], _IDS)))
            .values(state="replaying", replay_id=replay_id, replay_batch_id=batch_id)
        )
    return len(waiting)


def split_replay(engine: sa.Engine, row: LedgerRow) -> bool:
    """Makes two batches of one, by requests: the row keeps the first half, a new row gets the second.

    False when the row has changed meanwhile, or is one request.
    """
    parent = sa.select(assets).where(
        assets.c.id == row.id, assets.c.attempt == row.attempt, BETWEEN_ATTEMPTS, assets.c.kind == "replay"
    )
    entry_of = _entries()
    columns = dead_letters.c
    at = sa.func.coalesce(columns.received_at, columns.first_failed_at).label("at")
    query = sa.select(columns.id, columns.receipt, at, sa.func.octet_length(columns.payload).label("bytes"))
    with warehouse_errors(), engine.begin() as connection:
        found = connection.execute(parent.with_for_update()).one_or_none()
        if found is None:
            return False
        letters = [
            Waiting(each.id, row.stream, False, entry_of(each.receipt, each.at), each.bytes)
            for each in connection.execute(query.where(*_of_batch(row.id)))
        ]
        ids = sorted({letter.entry for letter in letters})
        if len(ids) < 2:
            return False
        middle = ids[len(ids) // 2]
        first = [letter for letter in letters if letter.entry < middle]
        second = [letter for letter in letters if letter.entry >= middle]
        kept = sa.update(assets).where(assets.c.id == row.id).values(failures=PLAIN_FAILURES, **_extent(first))
        failures = connection.execute(kept.returning(assets.c.failures)).scalar_one()
        added = _batch(second, found.replay_id, found.job_name).values(failures=failures)
        new_id = connection.execute(added).scalar_one()
        connection.execute(
            sa.update(dead_letters)
            .where(columns.id == sa.any_(sa.literal([letter.id for letter in second], _IDS)))
            .values(replay_batch_id=new_id)
        )
    return True


_IDS = sa.ARRAY(sa.BigInteger)


def _of_batch(batch_id: int) -> tuple[sa.ColumnElement[bool], ...]:
    return dead_letters.c.replay_batch_id == batch_id, dead_letters.c.state == "replaying"


def _batch(part: Sequence[Waiting], replay_id: int, job_name: str) -> sa.Insert:
    stream = part[0].stream
    return (
        sa.insert(assets)
        .values(
            kind="replay",
            asset_key=replay_asset(stream),
            stream=stream,
            state="planned",
            replay_id=replay_id,
            job_name=job_name,
            **_extent(part),
        )
        .returning(assets.c.id)
    )


def _extent(part: Sequence[Waiting]) -> dict[str, Any]:
    """What the ledger says of a batch's size, and its first and last request."""
    first, last = min(letter.entry for letter in part), max(letter.entry for letter in part)
    return {
        "first_ms": first.ms,
        "first_seq": first.seq,
        "last_ms": last.ms,
        "last_seq": last.seq,
        "entries": len({letter.entry for letter in part}),
        "events_planned": len(part),
        "bytes_planned": sum(letter.bytes for letter in part),
    }


def _entries() -> Callable[[str | None, datetime], EntryId]:
    """Finds the entry of a letter by its receipt. Without one the time stands in: its clock is right at least."""

    @lru_cache(maxsize=4096)  # the letters of a request follow each other
    def entry_of(receipt: str | None, at: datetime) -> EntryId:
        if receipt is not None:
            try:
                return Receipt.parse(receipt).entry
            except PermanentError:
                pass
        return EntryId(int(at.timestamp() * 1000), 0)

    return entry_of
