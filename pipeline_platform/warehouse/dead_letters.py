"""Dead letters as people look at them: found by a filter, counted, paged, exported, and purged by age and state."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, NamedTuple, Self

import sqlalchemy as sa

from pipeline_platform.core.rejections import Reason
from pipeline_platform.errors import PermanentError
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.schema import dead_letters

LETTER_STATES = ("open", "replaying", "replayed", "discarded")
REASONS = tuple(reason.value for reason in Reason)
MOST_IDS = 10_000
CHUNK = 500  # rows of an export that are in memory at once

_LISTS = ("streams", "reasons", "states", "fields")
_TEXTS = ("receipt", "text")
_TIMES = ("since", "until")


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters: those that match every part that is given; an empty filter matches all.

    `since` <= last_failed_at < `until`, aware datetimes. `text` is looked for in payload and message, whatever the
    case. `batch_id` is the batch that refused them first.
    """

    streams: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    receipt: str | None = None
    text: str | None = None
    batch_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raises PermanentError for what can match nothing: an unknown reason or state, a time without an offset."""
        for name, given, known in (("reason", self.reasons, REASONS), ("state", self.states, LETTER_STATES)):
            if unknown := [value for value in given if value not in known]:
                raise PermanentError(f"{unknown[0]!r} is no {name} of dead letters; there are {', '.join(known)}.")
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is not None and moment.tzinfo is None:
                raise PermanentError(f"{name} needs an offset, such as 2026-01-31T08:00:00Z.")
        if len(self.ids) > MOST_IDS:
            raise PermanentError(f"At most {MOST_IDS} ids at once; filter by stream, reason or time instead.")

    def document(self) -> dict[str, object]:
        """The parts that are given, as JSON; what `from_document` reads."""
        found: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value not in (None, ()):
                found[field.name] = _plain(value)
        return found

    @classmethod
    def from_document(cls, document: object) -> Self:
        """The filter in a JSON document. Raises PermanentError saying what is wrong with it."""
        if not isinstance(document, Mapping):
            raise PermanentError('A filter is an object such as {"streams": ["telemetry"], "reasons": ["bad_type"]}.')
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(map(str, document)) - known):
            raise PermanentError(f"A filter has no {unknown[0]!r}; it has {', '.join(sorted(known))}.")
        return cls(**{name: _part(name, value) for name, value in document.items() if value is not None})


def _plain(value: Any) -> object:
    if isinstance(value, tuple):
        return list(value)
    return value.isoformat() if isinstance(value, datetime) else value


def _part(name: str, value: Any) -> Any:
    """One part of a filter document as the dataclass has it."""
    if name in _LISTS:
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        raise PermanentError(f"{name} is a list of texts.")
    if name == "ids":
        if isinstance(value, list) and all(_is_id(item) for item in value):
            return tuple(value)
        raise PermanentError("ids is a list of whole numbers.")
    if name in _TEXTS:
        if isinstance(value, str):
            return value
        raise PermanentError(f"{name} is a text.")
    if name in _TIMES:
        try:
            return datetime.fromisoformat(value)
        except (TypeError, ValueError):
            raise PermanentError(f"{name} is an RFC 3339 time, such as 2026-01-31T08:00:00Z.") from None
    if not _is_id(value):
        raise PermanentError(f"{name} is a whole number.")
    return value


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


@dataclass(frozen=True, slots=True)
class Letter:
    """One dead letter, all of its columns. Times are aware UTC datetimes."""

    id: int
    stream: str
    reason: str
    field: str | None
    message: str
    payload: str
    stage: str
    batch_id: int | None
    run_id: str | None
    receipt: str | None
    line: int | None
    state: str
    attempts: int
    replay_id: int | None
    replay_batch_id: int | None
    received_at: datetime | None
    first_failed_at: datetime
    last_failed_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class Page:
    """Some letters, the newest first; `next` is the `after_id` of the page after it, None on the last one."""

    letters: tuple[Letter, ...]
    next: int | None


class LetterCount(NamedTuple):
    """How many letters of one stream, reason and state there are."""

    stream: str
    reason: str
    state: str
    letters: int


def count(engine: sa.Engine, which: LetterFilter) -> int:
    """How many letters match."""
    query = sa.select(sa.func.count()).select_from(dead_letters).where(matches(which))
    with warehouse_errors(), engine.connect() as connection:
        return int(connection.scalar(query) or 0)


def counts_by(engine: sa.Engine, which: LetterFilter) -> list[LetterCount]:
    """The matching letters by stream, reason and state, the most first."""
    columns = (dead_letters.c.stream, dead_letters.c.reason, dead_letters.c.state)
    number = sa.func.count()
    query = sa.select(*columns, number).where(matches(which)).group_by(*columns).order_by(number.desc(), *columns)
    with warehouse_errors(), engine.connect() as connection:
        return [LetterCount(*row) for row in connection.execute(query)]


def list_letters(engine: sa.Engine, which: LetterFilter, *, limit: int, after_id: int | None = None) -> Page:
    """A page of at most `limit` matching letters, the newest (highest id) first, from below `after_id` on."""
    query = sa.select(*_COLUMNS).where(matches(which)).order_by(dead_letters.c.id.desc()).limit(limit + 1)
    if after_id is not None:
        query = query.where(dead_letters.c.id < after_id)
    with warehouse_errors(), engine.connect() as connection:
        letters = tuple(_letter(row) for row in connection.execute(query))
    return Page(letters[:limit], letters[limit - 1].id if len(letters) > limit else None)


def get_letter(engine: sa.Engine, letter_id: int) -> Letter | None:
    """The letter with this number."""
    with warehouse_errors(), engine.connect() as connection:
        row = connection.execute(sa.select(*_COLUMNS).where(dead_letters.c.id == letter_id)).one_or_none()
    return _letter(row) if row is not None else None


def stream_letters(engine: sa.Engine, which: LetterFilter) -> Iterator[Letter]:
    """All matching letters, the oldest first, from one snapshot and a few hundred at a time."""
    query = sa.select(*_COLUMNS).where(matches(which)).order_by(dead_letters.c.id)
    with (
        warehouse_errors(),
        engine.connect().execution_options(yield_per=CHUNK) as connection,
        connection.execute(query) as rows,  # closed, too, when the reader leaves early
    ):
        for row in rows:
            yield _letter(row)


def purge(engine: sa.Engine, keep: Mapping[str, timedelta], now: datetime, step: int = 5_000) -> dict[str, int]:
    """Deletes the letters that are longer in a state than it says to keep them; how many by state.

    A state that `keep` does not name is kept for ever; what is being replayed is never purged. `step` rows a
    transaction, so that nobody waits for long.
    """
    purged = {}
    for state, age in keep.items():
        if state not in LETTER_STATES or state == "replaying":
            raise PermanentError(f"Dead letters cannot be purged by the state {state!r}.")
        since = dead_letters.c.last_failed_at if state == "open" else dead_letters.c.settled_at
        # No letter is settled before it last failed: the index on (state, last_failed_at) finds them all.
        old = sa.and_(dead_letters.c.state == state, dead_letters.c.last_failed_at < now - age, since < now - age)
        some = sa.select(dead_letters.c.id).where(old).limit(step).with_for_update(skip_locked=True)
        purged[state] = 0
        while True:
            with warehouse_errors(), engine.begin() as connection:
                gone = connection.execute(sa.delete(dead_letters).where(dead_letters.c.id.in_(some))).rowcount
            purged[state] += gone
            if not gone:
                break
    return purged


def matches(which: LetterFilter) -> sa.ColumnElement[bool]:
    """The filter as a condition on `dead_letters`."""
    column = dead_letters.c
    parts: list[sa.ColumnElement[bool]] = [sa.true()]
    for values, of in (
        (which.streams, column.stream),
        (which.reasons, column.reason),
        (which.states, column.state),
        (which.fields, column.field),
        (which.ids, column.id),
    ):
        if values:
            parts.append(of.in_(values))
    if which.receipt is not None:
        parts.append(column.receipt == which.receipt)
    if which.batch_id is not None:
        parts.append(column.batch_id == which.batch_id)
    if which.since is not None:
        parts.append(column.last_failed_at >= which.since)
    if which.until is not None:
        parts.append(column.last_failed_at < which.until)
    if which.text:
        parts.append(sa.or_(*(_holds(each, which.text) for each in (column.payload, column.message))))
    return sa.and_(*parts)


def open_letters(which: LetterFilter, streams: Collection[str] | None = None) -> sa.ColumnElement[bool]:
    """The open letters that match, of those streams. Raises PermanentError when the filter asks for other states."""
    if which.states and "open" not in which.states:
        raise PermanentError(
            f"Only open dead letters can be replayed or discarded; these would be {', '.join(which.states)}."
        )
    parts = [matches(which), dead_letters.c.state == "open"]
    if streams is not None:
        parts.append(dead_letters.c.stream.in_(sorted(streams)))
    return sa.and_(*parts)


def replayable_letters(which: LetterFilter, streams: Collection[str]) -> sa.ColumnElement[bool]:
    """The open letters that match and that a replay takes.

    Repeats of an event_id only where reasons or ids name them: past `unique_for` they would pass as new events.
    """
    letters = open_letters(which, streams)
    if which.reasons or which.ids:
        return letters
    return sa.and_(letters, dead_letters.c.reason != Reason.DUPLICATE_EVENT_ID.value)


def _holds(column: sa.Column[Any], text: str) -> sa.ColumnElement[bool]:
    return sa.func.strpos(sa.func.lower(column), sa.func.lower(text)) > 0


_COLUMNS = tuple(dead_letters.c[field.name] for field in fields(Letter))


def _letter(row: Iterable[Any]) -> Letter:
    return Letter(*row)
