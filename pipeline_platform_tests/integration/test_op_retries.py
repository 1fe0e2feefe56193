"""A transient failure is tried again in the same run after 2, 4 and 8 s; each try is on record, in Dagster and here."""

from __future__ import annotations

import threading
import time

import dagster as dg
import psycopg
import pytest

from pipeline_platform.core.failures import FailureKind
from pipeline_platform.errors import QueueUnavailableError
from pipeline_platform.orchestration.ingest import attempts
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


def _hold(url: str, held: threading.Event) -> None:
    """Holds the minutes' table for 4 s."""
    with psycopg.connect(url) as connection:
        connection.execute("lock table telemetry_minutes in exclusive mode")
        held.set()
        time.sleep(4)


def _away(*_: object) -> object:

    raise QueueUnavailableError("The queue's server cannot be reached.")
