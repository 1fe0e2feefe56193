"""What happens when an op of a run fails: the ledger row tells of it, and a transient failure is tried again."""

# No postponed annotations here: Dagster reads them at run time.

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol, cast

import dagster as dg

from pipeline_platform.core.batches import retry_pause
from pipeline_platform.core.failures import OP_RETRIES, RUN_CANCELED, Failure, FailureKind, NextStep, of_os_error
from pipeline_platform.errors import PermanentError, PlatformError, PoisonError, TransientError, interrupt_behind
from pipeline_platform.orchestration.resources import Warehouse


class Attempt(Protocol):
    """A row of the ledger, as far as a failure needs it."""

    @property
    def id(self) -> int:
        """assets.id."""

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1."""


class Book(Protocol):
    """What writes failures down: the ledger of batches, or that of ETL work."""

    def retrying(self, batch_id: int, failure: Failure, /) -> None:
        """A try after which the op is tried again in the same run."""

    def fail(self, batch_id: int, failure: Failure, /, *, not_before: datetime) -> bool:
        """A failed attempt."""


def kind_of(error: Exception) -> FailureKind:
    """The kind of a failure by its exception. What is not one of ours may be the data's doing: it is looked into.

    A machine without memory is no more to the data's discredit than one that killed the run: smaller batches may help.
    """
    if isinstance(error, TransientError):
        return FailureKind.TRANSIENT
    if isinstance(error, OSError):
        return of_os_error(error)
    if isinstance(error, MemoryError):
        return FailureKind.LOST
    if isinstance(error, PermanentError) and not isinstance(error, PoisonError):
        return FailureKind.PERMANENT
    return FailureKind.POISON


def tried_again(context: dg.OpExecutionContext, error: Exception) -> bool:
    """Whether the op is tried again in the same run after this."""
    return kind_of(error) is FailureKind.TRANSIENT and context.retry_number < len(OP_RETRIES)


@contextmanager
def recorded(
    context: dg.OpExecutionContext,
    warehouse: Warehouse,
    row: Attempt | None,
    mode: NextStep = NextStep.PLAIN,
    *,
    book: Book | None = None,
    jitter: Callable[[], float] = random.random,
) -> Iterator[None]:
    """Writes a failure of the block to the ledger row before the op fails, so that `assets` tells of it.

    A transient failure makes the op try again after 2, 4 and 8 s; what fails then is the planner's to request again.
    Where the warehouse itself is away, or no row is known yet, the planner finds the ended run later. What ends the run
    itself, such as a cancel, is never tried again after. `book`: another ledger than the batches'.
    """
    before = sys.exception()
    try:
        yield
    except BaseException as caught:
        if (interrupt := interrupt_behind(caught, before)) is not None:
            _note_end(context, book or warehouse.ledger, row, mode)
            raise interrupt from None
        error = cast(Exception, caught)
        again, retried = tried_again(context, error), context.retry_number
        if row is not None:
            failure = Failure(
                kind_of(error),
                type(error).__name__,
                str(error) or type(error).__name__,
                attempt=row.attempt,
                mode=mode,
                op=context.op.name,
                run_id=context.run_id,
                retried=retried,
                final=not again,
            )
            _write(context, book or warehouse.ledger, row, failure)
        if not again:
            raise
        pause = OP_RETRIES[retried] * (1.0 + warehouse.retry_jitter * jitter())
        context.log.warning("%s Trying again in %.0f s.", error, pause)
        raise dg.RetryRequested(max_retries=len(OP_RETRIES), seconds_to_wait=pause) from error


def _note_end(context: dg.OpExecutionContext, book: Book, row: Attempt | None, mode: NextStep) -> None:
    """Writes that somebody has ended the run: canceled where Dagster was asked to, else lost with its process."""
    if row is None:
        return
    run = context.instance.get_run_by_id(context.run_id)
    kind, name, words = FailureKind.LOST, "RunInterrupted", "The run's process was told to end."
    if run is not None and run.status is dg.DagsterRunStatus.CANCELING:
        kind, name, words = FailureKind.CANCELED, RUN_CANCELED, "The run was canceled."
    failure = Failure(kind, name, words, attempt=row.attempt, mode=mode, op=context.op.name, run_id=context.run_id)
    _write(context, book, row, failure)


def _write(context: dg.OpExecutionContext, book: Book, row: Attempt, failure: Failure) -> None:
    try:
        if failure.final:
            pause = timedelta(seconds=retry_pause(row.attempt))
            book.fail(row.id, failure, not_before=datetime.now(UTC) + pause)
        else:
            book.retrying(row.id, failure)
    except PlatformError as second:
        context.log.warning("The failure could not be written to the ledger: %s", second)
