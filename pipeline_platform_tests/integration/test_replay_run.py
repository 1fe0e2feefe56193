"""A replay's run in process, from the shipped definitions: the sensor, the ops, and letters that kill their process."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.failures import Failure, FailureKind, NextStep
from pipeline_platform.orchestration.partition_ranges import RANGE_END, RANGE_START
from pipeline_platform.warehouse.dead_letters import LetterFilter
from pipeline_platform.warehouse.etl_ledger import EtlLedger
from pipeline_platform.warehouse.failed_runs import FailedRun, record_failed_runs
from pipeline_platform.warehouse.replays import Replay, begin, get_replay, retry_asset
from pipeline_platform_tests.integration.batches import execute, rows
from pipeline_platform_tests.integration.test_ingest_run import Stack, reading, stack  # noqa: F401
from pipeline_platform_tests.integration.test_poison import planted  # noqa: F401

pytestmark = [
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]
STATES = "select state, reason, attempts, count(*) from dead_letters group by 1, 2, 3 order by 1, 2"


def test_a_replay_goes_from_dead_letters_to_the_warehouse_in_one_run(stack: Stack) -> None:  # noqa: F811
    stack.post(reading(1.0), reading(2.0, colour="red"), reading(-3.0, colour="red"), b"not json")
    assert stack.run(stack.tick()[0]).success
    assert _tick(stack) == []
    begun = _begin(stack, Edit.parse({"merge": {"colour": None}}))
    (request,) = _tick(stack)
    assert (request.job_name, request.run_key) == ("replay_telemetry", "replay-2-1")
    assert request.tags["pipeline/replay_id"] == str(begun.id)
    job = stack.repository.get_job("replay_telemetry")
    assert job.run_tags["dagster-celery/queue"] == "etl"
    assert [node.name for node in job.nodes_in_topological_order][::4] == ["read_dead_letters", "load"]
    stack.repository.load_all_definitions()  # as a code server does: names of ops are unique

    result = stack.run(request, job="replay_telemetry")

    assert result.success
    row = stack.row(2)
    assert (row.state, row.kind, row.run_id, row.events_read) == ("loaded", "replay", result.run_id, 3)
    assert (row.events_loaded, row.events_negative, row.events_rejected) == (1, 1, 1)
    assert rows(stack.engine, STATES) == [("open", "malformed", 2, 1), ("replayed", "unknown_field", 1, 2)]
    done = get_replay(stack.engine, begun.id)
    assert done is not None
    assert (done.state, done.passed, done.negative, done.failed) == ("done", 1, 1, 1)
    assert all(stack.check().values())
    assert _tick(stack) == []
    # The same run again, as a broker that delivers twice would have it.
    assert stack.run(request, job="replay_telemetry").success
    assert rows(stack.engine, "select sum(value) from telemetry") == [(3.0,)]


def test_an_ingest_run_does_not_take_a_replay_s_batch(stack: Stack) -> None:  # noqa: F811
    stack.post(reading(1.0, colour="red"))
    (request,) = stack.tick()
    assert stack.run(request).success
    _begin(stack)
    config = {"ops": {"ingest_telemetry_batch": {"config": {"batch_id": 2, "attempt": 1, "mode": "plain"}}}}
    job = stack.repository.get_job("ingest_telemetry")
    assert not job.execute_in_process(run_config=config, instance=stack.instance, raise_on_error=False).success
    assert rows(stack.engine, "select state, attempt, run_id from assets where id = 2") == [("planned", 0, None)]


@pytest.mark.usefixtures("planted")
def test_a_letter_that_kills_its_process_again_stays_open_and_the_others_go_on(
    stack: Stack,  # noqa: F811
) -> None:
    # Given two lines that were poison, of which a newer version of the code can bear one, and a line refused before
    stack.post(reading(1.0, colour="red"), reading(2.0, metric="poison: kill"), reading(3.0, metric="poison: raise"))
    (first,) = stack.tick()
    assert not stack.run(first).success
    execute(stack.engine, "update assets set not_before = now()")
    assert stack.run(stack.tick()[0]).success
    assert rows(stack.engine, STATES) == [("open", "poison", 1, 2), ("open", "unknown_field", 1, 1)]
    execute(stack.engine, "update dead_letters set payload = replace(payload, 'poison: raise', 'm')")

    # When all are replayed, and an edit makes poison of the refused one
    _begin(stack, which=LetterFilter(reasons=("poison",)))
    _begin(stack, Edit.parse({"merge": {"colour": None, "metric": "poison: raise"}}))

    # I expect the poison to be found without a failed run, and the new one after one
    (request,) = _tick(stack)
    assert stack.run(request, job="replay_telemetry").success
    assert rows(stack.engine, STATES) == [
        ("open", "poison", 2, 1),
        ("replayed", "poison", 1, 1),
        ("replaying", "unknown_field", 1, 1),
    ]
    (request,) = _tick(stack)
    assert not stack.run(request, job="replay_telemetry").success
    assert stack.row(3).next_step is NextStep.CAREFUL
    execute(stack.engine, "update assets set not_before = now() where id = 3")
    (request,) = _tick(stack)
    assert stack.run(request, job="replay_telemetry").success
    assert rows(stack.engine, STATES) == [("open", "poison", 2, 2), ("replayed", "poison", 1, 1)]
    assert rows(stack.engine, "select value from telemetry") == [(3.0,)]
    assert rows(stack.engine, "select count(*) from assets where state = 'loaded'") == [(3,)]
    assert rows(stack.engine, "select count(*) from replays where state = 'done'") == [(2,)]
    assert all(stack.check().values())


@pytest.mark.usefixtures("planted")
def test_what_care_does_not_help_is_open_again_and_nothing_else_is(
    stack: Stack,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given poison that shows only in the run itself, never in a rehearsal
    monkeypatch.setenv("PYTHONPLANTED", "")
    for number in range(4):
        stack.post(reading(colour="red"), reading(colour="red", source="bad" if number == 2 else "s"))
    for request in stack.tick():
        assert stack.run(request).success
    # "source" becomes "poison" for one line only.
    begun = _begin(stack, Edit.parse({"merge": {"colour": None}}))
    execute(
        stack.engine,
        'update dead_letters set payload = replace(payload, \'"metric":"m1"\', \'"metric":"poison: raise"\') '
        "where payload like '%bad%'",
    )
    for _ in range(40):
        for request in _tick(stack):
            stack.run(request, job="replay_telemetry")
        execute(stack.engine, "update assets set not_before = now() where not_before is not null")
        if not stack.ledger.unsettled(None, "replay"):
            break
    assert rows(stack.engine, STATES) == [("open", "poison", 2, 2), ("replayed", "unknown_field", 1, 6)]
    done = get_replay(stack.engine, begun.id)
    assert done is not None
    assert (done.state, done.passed, done.failed) == ("done", 6, 2)
    assert all(stack.check().values())


def test_settled_letters_are_purged_by_the_maintenance_once_they_are_old(stack: Stack) -> None:  # noqa: F811
    stack.post(*[reading(1.0, colour="red")] * 4)
    assert stack.run(stack.tick()[0]).success
    old = datetime.now(UTC) - timedelta(days=31)
    execute(stack.engine, "update dead_letters set last_failed_at = :old, first_failed_at = :old", old=old)
    execute(stack.engine, "update dead_letters set state = 'replayed', settled_at = :old where id <= 2", old=old)
    execute(stack.engine, "update dead_letters set state = 'discarded', settled_at = now() where id = 3")
    assert stack.run(job="maintain_warehouse").success
    assert rows(stack.engine, "select id, state from dead_letters order by id") == [(3, "discarded"), (4, "open")]


def test_rows_of_partitions_and_of_failed_jobs_are_tried_again_by_a_run(stack: Stack) -> None:  # noqa: F811
    book, days = EtlLedger(stack.engine), ("2026-01-02", "2026-01-05")
    lost = book.begin("warehouse/telemetry_1d", days[:1], "run-1", "rollup_telemetry_1d")
    book.fail(lost.id, Failure(FailureKind.LOST, "E", "m", run_id="run-1"), not_before=datetime.now(UTC))
    now = datetime.now(UTC)
    jobs = (("maintain_warehouse", None), ("rollup_telemetry_1d", f"{days[0]}...{days[1]}"), ("gone", None))
    for number, (job, partition) in enumerate(jobs):
        failed = FailedRun(f"run-2{number}", job, FailureKind.LOST, "E", "m", now, partition=partition)
        record_failed_runs(stack.engine, [failed])
    for row_id in (1, 2, 3, 4):
        retry_asset(stack.engine, row_id, requested_by="test", streams=("telemetry",))
    asked = _tick(stack)
    assert [(each.job_name, each.tags.get(RANGE_START), each.tags.get(RANGE_END)) for each in asked] == [
        ("rollup_telemetry_1d", days[0], days[0]),
        ("maintain_warehouse", None, None),
        ("rollup_telemetry_1d", *days),
    ]
    # Asked for until the run is there: a tick may come to nothing.
    assert [each.run_key for each in _tick(stack)] == [each.run_key for each in asked]
    states = "select asset_key, state, attempt from assets where run_id like 'run-%' order by id"
    before = rows(stack.engine, states)
    for each in asked:
        again = stack.repository.get_job(str(each.job_name))
        assert again.execute_in_process(instance=stack.instance, tags=dict(each.tags)).success
    assert _tick(stack) == []
    assert before[1:] == [(f"job/{job}", "failed", 1) for job, _ in jobs]
    assert rows(stack.engine, states) == [
        ("job/maintain_warehouse", "replayed", 1),
        ("job/rollup_telemetry_1d", "replayed", 1),
        ("job/gone", "failed", 1),
    ]
    loaded = "select partition_key, state, attempt from assets where asset_key = 'warehouse/telemetry_1d' order by id"
    assert rows(stack.engine, loaded)[0] == (days[0], "loaded", 2)
    assert rows(stack.engine, "select distinct action, state from replays") == [("retry", "done")]


def _begin(stack: Stack, edit: Edit | None = None, which: LetterFilter | None = None) -> Replay:  # noqa: F811
    return begin(stack.engine, which or LetterFilter(), edit, requested_by="test", streams=("telemetry",))


def _tick(stack: Stack) -> list[dg.RunRequest]:  # noqa: F811
    """The runs that the replay sensor asks for."""
    sensor = stack.repository.get_sensor_def("replay_sensor")
    with dg.build_sensor_context(stack.instance, resources=stack.definitions.resources) as context:
        return list(sensor.evaluate_tick(context).run_requests or [])
