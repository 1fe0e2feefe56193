"""Replays: dead letters tried again, or given up for good; each request is a row of `replays`, for the audit.

The dry run is in `replay_preview`, what a replay's batch is made of in `replay_batches`, its load in `load_replay`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from pipeline_platform.core.edits import Edit
from pipeline_platform.errors import PermanentError
from pipeline_platform.warehouse.alerts import burial_key, resolve_alert
from pipeline_platform.warehouse.dead_letters import LetterFilter, counts_by, open_letters, replayable_letters
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.failed_runs import OF_JOB
from pipeline_platform.warehouse.replay_batches import plan_replay
from pipeline_platform.warehouse.schema import UNSETTLED, assets, dead_letters, replays
from pipeline_platform.warehouse.text import storable

MOST_LETTERS = 200_000  # one request takes at most so many; the others stay open for the next


_BY_HAND = (f"{OF_JOB}ingest_", f"{OF_JOB}replay_", f"{OF_JOB}__")


@dataclass(frozen=True, slots=True)
class Replay:
    """One request, as its row in `replays` has it. `state` is running or done; `action` replay, discard or retry."""

    id: int
    action: str
    stream: str | None
    filter: Mapping[str, object]
    edit: Mapping[str, object] | None
    requested_by: str
    note: str | None
    state: str
    matched: int
    passed: int
    negative: int
    failed: int
    requested_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Retried:
    """What `retry_asset` did, a sentence for people, and its row in the audit."""

    asset_id: int
    message: str
    replay: Replay


def replay_job(stream: str) -> str:
    """The name of the Dagster job that replays a stream's dead letters."""
    return f"replay_{stream}"


def begin(
    engine: sa.Engine,
    which: LetterFilter,
    edit: Edit | None = None,
    *,
    requested_by: str,
    streams: Collection[str],
    note: str | None = None,
    job_name_of: Callable[[str], str] = replay_job,
) -> Replay:
    """Takes the matching open letters of the declared `streams` and plans their replay, in one transaction.

    Pressed twice or raced, a letter is taken once. Where nothing matches the Replay is done at once, with matched 0.
    At most MOST_LETTERS are taken. Raises PermanentError for a filter whose states leave out `open`.
    """
    column = dead_letters.c
    poison = (column.reason == "poison").label("poison")
    query = (
        sa.select(
            column.id,
            column.stream,
            poison,
            column.receipt,
            sa.func.coalesce(column.received_at, column.first_failed_at).label("at"),
            sa.func.octet_length(column.payload).label("bytes"),
        )
        .where(replayable_letters(which, streams))
        .order_by(column.stream, poison, column.received_at, column.receipt, column.line, column.id)
        .limit(MOST_LETTERS)
        # Who is second passes over what the first has locked, and finds it taken once the first is done.
        .with_for_update(skip_locked=True)
    )
    with warehouse_errors(), engine.begin() as connection:
        replay_id = _insert(connection, "replay", which.document(), edit, requested_by, note, _stream_of(which))
        matched = plan_replay(connection, replay_id, connection.execute(query), job_name_of)
        return _update(connection, replay_id, matched=matched, **({} if matched else _DONE))


def discard(engine: sa.Engine, which: LetterFilter, *, requested_by: str, note: str | None = None) -> Replay:
    """Gives up the matching open letters: they stay to be looked at until their retention, and are not replayed.

    Raises PermanentError for a filter whose states leave out `open`.
    """
    taken = sa.select(dead_letters.c.id).where(open_letters(which)).with_for_update(skip_locked=True)
    with warehouse_errors(), engine.begin() as connection:
        replay_id = _insert(connection, "discard", which.document(), None, requested_by, note, _stream_of(which))
        given_up = connection.execute(
            sa.update(dead_letters)
            .where(dead_letters.c.id.in_(taken))
            .values(state="discarded", replay_id=replay_id, settled_at=sa.func.now())
        ).rowcount
        settle_burials(connection, dead_letters.c.replay_id == replay_id)
        return _update(connection, replay_id, matched=given_up, **_DONE)


def retry_asset(
    engine: sa.Engine,
    asset_id: int,
    *,
    requested_by: str,
    streams: Collection[str],
    note: str | None = None,
    job_name_of: Callable[[str], str] = replay_job,
) -> Retried:
    """Tries a whole row of `assets` again: a dead one by a replay of its letters, a failing one by being due at once.

    For an ETL row the replay sensor requests a run, of the partition or of the job. All of it is in the audit.

    Raises PermanentError saying why where there is nothing to try again.
    """
    with warehouse_errors(), engine.begin() as connection:
        query = sa.select(assets).where(assets.c.id == asset_id)
        row = connection.execute(query.with_for_update()).one_or_none()
        if row is None:
            raise PermanentError(f"There is no row {asset_id} in assets.")
        which = {"asset_id": asset_id}
        if row.kind == "etl" and row.state == "failed":
            if row.asset_key.startswith(_BY_HAND):
                raise PermanentError(
                    f"Row {asset_id} is a failed run of {row.job_name}. A batch goes on by itself; an asset that was "
                    "materialized by hand, or by a backfill, is materialized again in the Dagster UI."
                )
            if connection.execute(_retries().where(assets.c.id == asset_id)).first() is not None:
                raise PermanentError(f"Row {asset_id} has nothing to retry: its next run is requested already.")
            what = row.partition_key or row.job_name
            again = _update(connection, _insert(connection, "retry", which, None, requested_by, note))
            return Retried(asset_id, f"A run for {what} is requested within seconds (request {again.id}).", again)
        if row.state in UNSETTLED:
            if row.not_before is None:
                waits = f"attempt {row.attempt} is under way" if row.attempt else "its first run is about to begin"
                raise PermanentError(f"Row {asset_id} has nothing to retry: {waits}.")
            due = {"not_before": sa.func.least(assets.c.not_before, sa.func.now())}
            connection.execute(sa.update(assets).where(assets.c.id == asset_id).values(**due))
            request_id = _insert(connection, "retry", which, None, requested_by, note)
            again = _update(connection, request_id, **_DONE)
            said = f"Row {asset_id} is due now; attempt {row.attempt + 1} begins within seconds."
            return Retried(asset_id, said, again)
    if row.state == "obsolete":
        raise PermanentError(f"Row {asset_id} is obsolete, there is nothing to retry. {row.error_message}")
    if row.state != "dead":
        rejected = (
            f" Its {row.events_rejected} rejected events are dead letters: replay those, by the filter batch_id "
            f"{asset_id}."
            if row.state == "loaded" and row.events_rejected
            else ""
        )
        raise PermanentError(f"Row {asset_id} is {row.state}: there is nothing to retry.{rejected}")
    if row.stream not in streams:
        raise PermanentError(f"Row {asset_id} is of the stream {row.stream}, which is not declared any more.")
    letters = LetterFilter(batch_id=asset_id)
    replay = begin(engine, letters, requested_by=requested_by, streams=streams, note=note, job_name_of=job_name_of)
    if not replay.matched:
        counts = ", ".join(f"{each.letters} {each.state}" for each in counts_by(engine, letters))
        raise PermanentError(f"Row {asset_id} has no open dead letters to replay; it has {counts or 'none at all'}.")
    return Retried(asset_id, f"Replay {replay.id} tries the {replay.matched} events of row {asset_id} again.", replay)


@dataclass(frozen=True)
class AskedRetry:
    """A request to try an ETL row again."""

    id: int
    asset_id: int
    asset_key: str
    partition_key: str | None


def asked_retries(engine: sa.Engine) -> list[AskedRetry]:
    """The ETL rows that are to be tried again and for which no run is requested yet."""
    with warehouse_errors(), engine.connect() as connection:
        return [AskedRetry(*row) for row in connection.execute(_retries().order_by(replays.c.id))]


def retried(engine: sa.Engine, retry: AskedRetry, *, begun: bool) -> None:
    """Notes that the run is there, or will never be. A partition's row goes on with it; a job's has had its day."""
    with warehouse_errors(), engine.begin() as connection:
        _update(connection, retry.id, **_DONE)
        if begun and retry.asset_key.startswith(OF_JOB):
            statement = sa.update(assets).where(assets.c.id == retry.asset_id, assets.c.state == "failed")
            connection.execute(statement.values(state="replayed"))


def _retries() -> sa.Select[Any]:
    asset_id = sa.cast(replays.c.filter["asset_id"].astext, sa.BigInteger)
    return (
        sa.select(replays.c.id, assets.c.id, assets.c.asset_key, assets.c.partition_key)
        .join(assets, assets.c.id == asset_id)
        .where(replays.c.action == "retry", replays.c.state == "running")
    )


def get_replay(engine: sa.Engine, replay_id: int) -> Replay | None:
    """The request with this number."""
    with warehouse_errors(), engine.connect() as connection:
        row = connection.execute(sa.select(*_COLUMNS).where(replays.c.id == replay_id)).one_or_none()
    return Replay(*row) if row is not None else None


def list_replays(engine: sa.Engine, *, limit: int, before_id: int | None = None) -> list[Replay]:
    """The latest requests, the newest first, from below `before_id` on."""
    query = sa.select(*_COLUMNS).order_by(replays.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(replays.c.id < before_id)
    with warehouse_errors(), engine.connect() as connection:
        return [Replay(*row) for row in connection.execute(query)]


def settle_replay(connection: sa.Connection, replay_id: int) -> None:
    """Sets the sums of a replay, and that it is done once all of its batches are settled.

    Its row is locked first: of two batches that are settled at once, the second sees the first.
    """
    connection.execute(sa.select(replays.c.id).where(replays.c.id == replay_id).with_for_update())
    batches = sa.select(
        sa.func.count().filter(assets.c.state.in_(UNSETTLED)).label("left"),
        sa.func.sum(assets.c.events_loaded).label("passed"),
        sa.func.sum(assets.c.events_negative).label("negative"),
        sa.func.sum(assets.c.events_rejected).label("failed"),
    ).where(assets.c.replay_id == replay_id)
    row = connection.execute(batches).one()
    sums = {"passed": row.passed, "negative": row.negative, "failed": row.failed}
    _update(connection, replay_id, **sums, **({} if row.left else _DONE))


def settle_burials(connection: sa.Connection, letters: sa.ColumnElement[bool]) -> None:
    """Makes those dead rows of `assets` `replayed` whose letters all are; called after `letters` have changed.

    The alert of a stream's dead rows is over once no letter of them is left to be looked at.
    """
    touched = sa.select(dead_letters.c.batch_id).where(letters)
    dead = sa.select(assets.c.id, assets.c.stream).where(assets.c.id.in_(touched), assets.c.state == "dead")
    # Locked in order: two that settle letters of one row see each other's.
    rows = connection.execute(dead.order_by(assets.c.id).with_for_update()).all()
    if not rows:
        return
    of_row = dead_letters.c.batch_id == assets.c.id
    connection.execute(
        sa.update(assets)
        .where(
            assets.c.id.in_([row.id for row in rows]),
            ~sa.exists().where(of_row, dead_letters.c.state != "replayed"),
        )
        .values(state="replayed")
    )
    for stream in {row.stream for row in rows}:
        left = sa.select(assets.c.id).where(
            assets.c.stream == stream,
            assets.c.state == "dead",
            sa.exists().where(of_row, dead_letters.c.state.in_(("open", "replaying"))),
        )
        if connection.execute(left.limit(1)).first() is None:
            resolve_alert(connection, burial_key(stream))


_COLUMNS = tuple(replays.c[field.name] for field in fields(Replay))
_DONE: dict[str, Any] = {"state": "done", "finished_at": sa.func.clock_timestamp()}


def _insert(
    connection: sa.Connection,
    action: str,
    which: dict[str, Any],
    edit: Edit | None,
    requested_by: str,
    note: str | None,
    stream: str | None = None,
) -> int:
    statement = sa.insert(replays).values(
        action=action,
        stream=stream,
        filter=which,
        edit=edit.document() if edit is not None else sa.null(),
        requested_by=storable(requested_by)[:200],
        note=storable(note)[:1000] if note else None,
        state="running",
    )
    return int(connection.execute(statement.returning(replays.c.id)).scalar_one())


def _stream_of(which: LetterFilter) -> str | None:
    return which.streams[0] if len(which.streams) == 1 else None


def _update(connection: sa.Connection, replay_id: int, **values: Any) -> Replay:
    values = values or {"state": replays.c.state}
    statement = sa.update(replays).where(replays.c.id == replay_id).values(**values)
    return Replay(*connection.execute(statement.returning(*_COLUMNS)).one())
