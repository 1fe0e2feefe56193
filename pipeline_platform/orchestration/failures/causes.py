"""Why a run failed, from its events: what its first failed op raised, or why it could not run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
from dagster_shared.error import SerializableErrorInfo

from pipeline_platform.core.failures import RUN_CANCELED, FailureKind
from pipeline_platform.errors import PoisonError, TransientError

_TELLING = {
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterEventType.RUN_CANCELED,
    dg.DagsterEventType.ENGINE_EVENT,
}
_EVENTS = 200  # the latest are read


@dataclass(frozen=True)
class Cause:
    """What is known of a failure; `op` is empty for the run itself."""

    kind: FailureKind
    error_class: str
    message: str
    op: str = ""


def cause_of(instance: dg.DagsterInstance, record: dg.RunRecord) -> Cause:
    """The cause by the run's events. The messages of errors, never their stacks."""
    run = record.dagster_run
    found = instance.get_records_for_run(run.run_id, of_type=_TELLING, limit=_EVENTS, ascending=False).records
    events = [event for record in reversed(found) if (event := record.event_log_entry.dagster_event) is not None]
    ending = next((event for event in reversed(events) if event.is_failure or _is_cancel(event)), None)
    if run.status is dg.DagsterRunStatus.CANCELED:
        return Cause(FailureKind.CANCELED, RUN_CANCELED, _message(ending) or "The run was canceled.")
    for event in events:
        if event.event_type is dg.DagsterEventType.STEP_FAILURE and event.step_failure_data.error is not None:
            raised = _innermost(event.step_failure_data.error)
            name = raised.cls_name or "Exception"
            return Cause(_kind(name), name, _text(raised), event.step_key or "")
    for event in reversed(events):
        error = _error_of(event)
        if error is not None:
            return Cause(FailureKind.LOST, error.cls_name or "Exception", _text(_innermost(error)))
    name = "RunLost" if record.start_time else "RunNotStarted"
    return Cause(FailureKind.LOST, name, _message(ending) or "The run was marked as failed; nothing says why.")


def _is_cancel(event: dg.DagsterEvent) -> bool:
    return event.event_type is dg.DagsterEventType.RUN_CANCELED


def _message(event: dg.DagsterEvent | None) -> str:
    return (event.message or "").strip() if event is not None else ""


def _error_of(event: dg.DagsterEvent) -> SerializableErrorInfo | None:
    if event.event_type is dg.DagsterEventType.ENGINE_EVENT:
        return event.engine_event_data.error
    if event.event_type is dg.DagsterEventType.RUN_FAILURE and event.event_specific_data is not None:
        return event.job_failure_data.error
    return None


def _innermost(error: SerializableErrorInfo) -> SerializableErrorInfo:
    """What was raised first: Dagster wraps it."""
    while error.cause is not None:
        error = error.cause
    return error


def _text(error: SerializableErrorInfo) -> str:
    """`Module.Class: message` as the message alone."""
    text = error.message.strip()
    name, colon, rest = text.partition(": ")
    return rest if colon and error.cls_name and name.endswith(error.cls_name) else text


def _kind(name: str) -> FailureKind:
    """By the name of the class: the process that raised it is gone."""
    if name in _names(TransientError):
        return FailureKind.TRANSIENT
    return FailureKind.POISON if name == PoisonError.__name__ else FailureKind.PERMANENT


def _names(kind: type[Exception]) -> Iterator[str]:
    yield kind.__name__
    for each in kind.__subclasses__():
        yield from _names(each)
