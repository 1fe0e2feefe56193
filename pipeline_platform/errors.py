"""The platform's exceptions.

    PlatformError
    +-- PermanentError      trying again cannot help; the input or the setting has to change
    |   +-- SpecError       a stream file is wrong: names file, line and field
    |   +-- SettingError    a setting, port or folder is unusable: says what to do
    |   +-- ConflictError   the same Idempotency-Key came with another body
    |   +-- DestructiveChangeError  a spec change would lose data
    |   +-- MissingEntriesError     planned entries are gone from the queue
    |   +-- EditError               an edit does not apply to an event
    |   +-- PoisonError             the data itself cannot be processed
    |   |   +-- TooManyBadLinesError    more of a batch's lines than can be found in one run
    |   +-- QueueRefusedError       Redis answers, and refuses for a reason that will not pass
    |   +-- SourceRefusedError      a source of prices has not taken our question for a day
    |   |   +-- UnknownSymbolError      it says that it does not know the symbol
    |   +-- SourceShapeError        a source's answer has another shape than promised
    +-- TransientError      the same call may succeed later
        +-- QueueUnavailableError     Redis is away, loading, or refuses writes
        +-- QueueFullError            Redis is at its memory limit
        +-- WarehouseUnavailableError PostgreSQL is away or out of connections
        +-- SourceUnavailableError    a source of prices is away, or asks us to wait
            +-- QuestionRefusedError      it refuses one question, and we do not know why; others it may answer

An exception's message says what happened and what to do next; it never holds a secret.
"""

from __future__ import annotations


class PlatformError(Exception):
    """The base of every error that this package raises on purpose."""


class PermanentError(PlatformError):
    """Trying again cannot help: the input or the configuration has to change."""


class TransientError(PlatformError):
    """The same call may succeed later."""


class SpecError(PermanentError):
    """A stream file is wrong."""


class SettingError(PermanentError):
    """A setting, a port or a folder cannot be used."""


class ConflictError(PermanentError):
    """The same Idempotency-Key was used with another body."""


class DestructiveChangeError(PermanentError):
    """A change of a stream's spec would lose data; make a new stream instead."""


class MissingEntriesError(PermanentError):
    """Entries that the ledger planned are no longer in the queue."""


class EditError(PermanentError):
    """An edit cannot be applied to this event; to others it may."""


class PoisonError(PermanentError):
    """The data itself cannot be processed: only this may make an event a dead letter."""


class TooManyBadLinesError(PoisonError):
    """So many lines of a batch cannot be processed that they are looked for in smaller batches."""


class QueueRefusedError(PermanentError):
    """The queue's server answers and refuses: a password, a right, or another kind of key in the place of ours."""


class QueueUnavailableError(TransientError):
    """The queue's server is away, still loading, or refuses to write."""


class QueueFullError(TransientError):
    """The queue's server is at its memory limit; the consumers have to catch up first."""


class WarehouseUnavailableError(TransientError):
    """The warehouse is away or out of connections."""


class SourceUnavailableError(TransientError):
    """A source of prices is away, slow, or asks us to come back after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class QuestionRefusedError(SourceUnavailableError):
    """A source of prices refuses one question, for a reason that its documents do not give. Others it may answer."""


class SourceRefusedError(PermanentError):
    """A source of prices has refused a question for a day; about `symbol`, where the question is about one."""

    def __init__(self, message: str, symbol: str | None = None) -> None:
        super().__init__(message)
        self.symbol = symbol


class UnknownSymbolError(SourceRefusedError):
    """A source of prices says that it does not know `symbol`; None: one of several, and it does not say which."""


class SourceShapeError(PermanentError):
    """A source's answer has another shape than its documents say; names the source and the field's path.

    `why`: the place and what is wrong with it alone. `structure`: a member is missing or is of another kind; otherwise
    it is only its value that cannot be.
    """

    def __init__(self, message: str, why: str = "", *, structure: bool = False) -> None:
        super().__init__(message)
        self.why = why or message
        self.structure = structure


def interrupt_behind(error: BaseException, handled: BaseException | None = None) -> BaseException | None:
    """What was to end the work, such as a cancel or Ctrl-C, where `error` only came of cleaning up after it.

    It is no Exception: nobody may tell of it as something else, or try again after it. `handled` is what was handled
    before the work began, which is no reason to end it.
    """
    seen: set[int] = {id(handled)}
    waiting = [error]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        if not isinstance(found, Exception):
            return found
        seen.add(id(found))
        waiting += [each for each in (found.__cause__, found.__context__) if each is not None]
    return None
