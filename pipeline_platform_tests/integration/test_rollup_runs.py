"""The rollups in Dagster: marked hours are requested, neighbours together; runs correct the hours and the days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from pipeline_platform.core.rollups import Grain
from pipeline_platform_tests.integration.batches import rows
from pipeline_platform_tests.integration.test_ingest_run import Stack, reading, stack  # noqa: F401
from pipeline_platform_tests.unit.examples import EDITED_CURSORS

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]


def test_late_events_correct_their_hours_and_days_by_runs(stack: Stack) -> None:  # noqa: F811
    hour = Grain.HOUR.floor(datetime.now(UTC) - timedelta(days=2))
    _load(stack, *(hour + timedelta(hours=number) for number in (0, 1, 2, 6)))

    hours = _requests(stack)

    assert [(request.job_name, request.partition_key) for request in hours] == [("rollup_telemetry_1h", None)] * 2
    assert hours[0].tags["dagster/asset_partition_range_start"] == f"{hour:%Y-%m-%d-%H:%M}"
    assert hours[0].tags["dagster/asset_partition_range_end"] == f"{hour + timedelta(hours=2):%Y-%m-%d-%H:%M}"
    assert all(_run(stack, request).success for request in hours)
    days = _requests(stack)
    assert {request.job_name for request in days} == {"rollup_telemetry_1d"}
    assert all(_run(stack, request).success for request in days)
    assert rows(stack.engine, "select sum(events) from telemetry_1d") == [(4,)]
    assert _requests(stack) == []

    _load(stack, hour + timedelta(minutes=59))
    for _ in Grain:
        for request in _requests(stack):
            result = _run(stack, request)
            (made,) = result.get_asset_materialization_events()
            assert made.materialization.metadata["windows corrected"].value == 1
    assert rows(stack.engine, "select events from telemetry_1h where window_start = :hour", hour=hour) == [(2,)]
    assert rows(stack.engine, "select sum(events) from telemetry_1d") == [(5,)]
    assert rows(stack.engine, "select events_behind from assets where kind = 'ingest' order by id") == [(0,), (1,)]


def test_a_partition_can_be_recomputed_from_the_facts(stack: Stack) -> None:  # noqa: F811
    hour = Grain.HOUR.floor(datetime.now(UTC) - timedelta(days=2))
    _load(stack, hour)
    with stack.engine.begin() as connection:
        connection.exec_driver_sql("update telemetry_minutes set events = 7")
    job = stack.repository.get_job("rollup_telemetry_1h")
    for recompute, events in ((False, 7), (True, 1)):
        config = {"ops": {"warehouse__telemetry_1h": {"config": {"recompute": recompute}}}}
        result = job.execute_in_process(
            instance=stack.instance, partition_key=f"{hour:%Y-%m-%d-%H:%M}", run_config=config
        )
        assert result.success
        assert rows(stack.engine, "select events from telemetry_1h") == [(events,)]


def test_the_checks_of_the_rollups_run_with_the_others(stack: Stack) -> None:  # noqa: F811
    _load(stack, datetime.now(UTC) - timedelta(hours=2))
    for request in _requests(stack):
        _run(stack, request)
    result = stack.run(job="check_streams")
    names = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert names["equals_recomputation_1h"]
    assert names["equals_recomputation_1d"]
    with stack.engine.begin() as connection:
        connection.exec_driver_sql("update telemetry_hours set value_max = 1e6")
    result = stack.run(job="check_streams")
    names = {each.check_name: each.passed for each in result.get_asset_check_evaluations() if not each.passed}
    assert names == {"equals_recomputation_1h": False}


def test_a_trickle_of_late_events_is_no_stream_of_runs(stack: Stack) -> None:  # noqa: F811
    """The first corrections are made at once, further ones at a pace; a new hour never waits."""
    late, cursor = datetime.now(UTC) - timedelta(hours=3), ""
    asked = []
    for _ in range(6):
        _load(stack, late)
        requests, cursor = _asked(stack, cursor)
        asked.append(len(requests))
        for request in requests:
            _run(stack, request)
    assert asked == [1, 1, 1, 0, 0, 0]
    _load(stack, late - timedelta(hours=1))
    requests, cursor = _asked(stack, cursor)
    assert len(requests) == 1
    for edited in EDITED_CURSORS:
        assert _asked(stack, edited)[0]


def _asked(stack: Stack, cursor: str) -> tuple[list[dg.RunRequest], str]:  # noqa: F811
    """What the sensor requests with that cursor, and the one it leaves."""
    sensor = stack.repository.get_sensor_def("rollup_sensor")
    with dg.build_sensor_context(stack.instance, cursor=cursor, resources=stack.definitions.resources) as context:
        data = sensor.evaluate_tick(context)
    return list(data.run_requests or []), data.cursor or cursor


def _load(stack: Stack, *times: datetime) -> None:  # noqa: F811
    stack.post(*(reading(ts=moment.isoformat()) for moment in times))
    for request in stack.tick():
        assert stack.run(request).success


def _requests(stack: Stack) -> list[dg.RunRequest]:  # noqa: F811
    return _asked(stack, "")[0]


def _run(stack: Stack, request: dg.RunRequest) -> dg.ExecuteInProcessResult:  # noqa: F811
    assert request.job_name
    job = stack.repository.get_job(request.job_name)
    return job.execute_in_process(instance=stack.instance, tags=dict(request.tags), raise_on_error=False)
