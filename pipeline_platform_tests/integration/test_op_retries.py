"""A transient failure is tried again in the same run after 2, 4 and 8 s; each try is on record, in Dagster and here."""

from __future__ import annotations

import errno
import logging
import threading
import time
from types import SimpleNamespace
from typing import Any

import dagster as dg
import psycopg
import pytest

from pipeline_platform.core.failures import FailureKind
from pipeline_platform.errors import PermanentError, QueueUnavailableError, TransientError, WarehouseUnavailableError
from pipeline_platform.orchestration.ingest import attempts
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform_tests.integration.batches import rows
from pipeline_platform_tests.integration.conftest import OTHERS_OUT
from pipeline_platform_tests.integration.test_ingest_run import Stack, reading, stack  # noqa: F401

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]


def test_a_deadlocked_load_is_tried_again_after_2_and_4_seconds(stack: Stack) -> None:  # noqa: F811
    # Given a table that somebody else holds for 4 s, and a server that lets nobody wait for that long
    stack.post(reading())
    (request,) = stack.tick()
    url = stack.engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"alter database {name} set lock_timeout = '200ms'".encode())
        connection.execute(OTHERS_OUT)  # who connects from now on gives up early
    held = threading.Event()
    other = threading.Thread(target=_hold, args=(url, held))
    other.start()
    held.wait(10)

    result = stack.run(request)

    other.join()
    assert result.success
    retries = [event for event in result.all_events if event.event_type is dg.DagsterEventType.STEP_UP_FOR_RETRY]
    assert [event.step_retry_data.seconds_to_wait for event in retries] == [2, 4]
    assert rows(stack.engine, "select state, attempt, op_retries from assets") == [("loaded", 1, 2)]
    failures = stack.row().failures
    assert [(each.kind, each.op, each.retried, each.final) for each in failures] == [
        (FailureKind.TRANSIENT, "load", 0, False),
        (FailureKind.TRANSIENT, "load", 1, False),
    ]
    assert all("55P03" in each.message for each in failures)
    assert all(stack.check().values())


def test_after_the_last_try_the_batch_is_planned_again_and_nothing_is_dead_lettered(
    stack: Stack,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "OP_RETRIES", (0.05, 0.1, 0.2))
    stack.post(reading())
    (request,) = stack.tick()
    monkeypatch.setattr(type(stack.queue), "read", _away)

    result = stack.run(request)

    assert not result.success
    row = stack.row()
    assert (row.state, row.attempt, row.failing) == ("planned", 1, True)
    assert [each.final for each in row.failures] == [False, False, False, True]
    assert rows(stack.engine, "select count(*) from dead_letters") == [(0,)]
    assert rows(stack.engine, "select state, error_kind, error_class from assets_failed") == [
        ("planned", "transient", "QueueUnavailableError")
    ]


@pytest.mark.parametrize(("jitter", "factor"), [(0.0, 1.0), (0.5, 1.25)])
def test_the_pauses_are_2_4_and_8_seconds_and_longer_only_where_jitter_is_set(jitter: float, factor: float) -> None:
    pauses = []
    for retried in range(4):
        context: Any = SimpleNamespace(retry_number=retried, log=logging.getLogger())
        warehouse: Any = SimpleNamespace(retry_jitter=jitter)
        try:
            with attempts.recorded(context, warehouse, None, jitter=lambda: 0.5):
                raise TransientError("It is away.")
        except dg.RetryRequested as asked:
            pauses.append(asked.seconds_to_wait)
        except TransientError:
            pauses.append(None)
    assert pauses == [2.0 * factor, 4.0 * factor, 8.0 * factor, None]


def test_a_warehouse_that_is_away_as_a_run_begins_is_asked_again(
    stack: Stack,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(attempts, "OP_RETRIES", (0.05, 0.1, 0.2))
    stack.post(reading())
    (request,) = stack.tick()
    real, answers = Ledger.get, iter([WarehouseUnavailableError("It is starting."), None])

    def get(self: Ledger, batch_id: int) -> Any:
        if (error := next(answers, None)) is not None:
            raise error
        return real(self, batch_id)

    monkeypatch.setattr(Ledger, "get", get)
    assert stack.run(request).success
    assert rows(stack.engine, "select state, attempt, op_retries from assets") == [("loaded", 1, 0)]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (BlockingIOError(errno.EAGAIN, "no more processes"), FailureKind.TRANSIENT),
        (ConnectionResetError(), FailureKind.TRANSIENT),
        (OverflowError(errno.EOVERFLOW, "no such time"), FailureKind.POISON),
        (OSError(errno.EOVERFLOW, "no such time"), FailureKind.POISON),
        (MemoryError(), FailureKind.LOST),
        (ZeroDivisionError(), FailureKind.POISON),
        (PermanentError("a right is missing"), FailureKind.PERMANENT),
    ],
)
def test_only_what_may_be_the_data_s_doing_is_held_against_it(error: Exception, kind: FailureKind) -> None:
    assert attempts.kind_of(error) is kind


def _hold(url: str, held: threading.Event) -> None:
    """Holds the minutes' table for 4 s."""
    with psycopg.connect(url) as connection:
        connection.execute("lock table telemetry_minutes in exclusive mode")
        held.set()
        time.sleep(4)


def _away(*_: object) -> object:

    raise QueueUnavailableError("The queue's server cannot be reached.")
