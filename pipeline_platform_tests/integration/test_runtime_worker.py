"""Warm workers over real servers: what is loaded when, who is served first, and what is not executed."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from celery import Celery
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

from pipeline_platform.orchestration.runtime.warm_child import WarmChild
from pipeline_platform.orchestration.runtime.warm_jobs import WarmJob
from pipeline_platform.orchestration.runtime.worker import build_worker_app, preload_parent
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.workers import WorkerBoard, Workers
from pipeline_platform_tests.integration import runtime_worker_kit as kit
from pipeline_platform_tests.integration.runtime_worker_kit import Worker, status, submit, wait_until

pytestmark = [pytest.mark.filterwarnings("ignore")]


def succeeded(instance: dg.DagsterInstance, *runs: str) -> bool:
    found = [status(instance, run) for run in runs]
    assert "FAILURE" not in found
    return set(found) == {"SUCCESS"}


def pids(instance: dg.DagsterInstance, *runs: str) -> set[int]:
    """The processes that executed the runs."""
    words = [entry.message for run in runs for entry in instance.all_logs(run) if "Started process" in entry.message]
    return {int(word.rpartition("pid: ")[2].rstrip(").")) for word in words}


def test_definitions_are_loaded_once_in_the_parent_and_a_new_child_is_born_warm(
    instance: dg.DagsterInstance, dagster_home: Path, redis_url: str
) -> None:
    worker = Worker(dagster_home, redis_url, children=1, KIT_TASKS="2")
    try:
        runs = []
        for job in (kit.five, kit.five_more, kit.five, kit.five_more, kit.five):
            runs.append(submit(instance, job))
            wait_until("the run succeeds", lambda run=runs[-1]: succeeded(instance, run))  # type: ignore[misc]
        assert len(pids(instance, *runs)) == 3  # two runs a child
        assert worker.loads.read_text() == f"{worker.process.pid} 1\n"
        assert "does not answer" not in worker.log.read_text()
    finally:
        worker.stop()


def test_a_recycled_childs_replacement_is_there_at_once_and_warm(
    instance: dg.DagsterInstance, dagster_home: Path, redis_url: str
) -> None:
    """Given a child for every run, if a run is submitted as the last child leaves, I expect no start-up cost."""
    worker = Worker(dagster_home, redis_url, children=1, KIT_TASKS="1", KIT_LOAD_SECONDS="6")
    gaps, delays = [], []
    try:
        for _ in range(3):
            submit(instance, kit.five)
            gaps.append(_gap(worker))
            wait_until("the next one waits", lambda: _idle(worker))
        for _ in range(2):
            submit(instance, kit.five)
            _gone(worker)
            left = time.monotonic()
            again = submit(instance, kit.five)
            wait_until("the next run succeeds", lambda run=again: succeeded(instance, run))  # type: ignore[misc]
            delays.append(time.monotonic() - left)
            wait_until("the next one waits", lambda: _idle(worker))
        print("exit -> next child:", [round(gap, 3) for gap in gaps])
        print("exit -> a run submitted then has succeeded:", [round(delay, 3) for delay in delays])
        assert worker.loads.read_text() == f"{worker.process.pid} 1\n"  # by the parent, before any child
        assert max(gaps) < 2.0, gaps  # Celery itself looks every five seconds
        assert max(delays) < 6.0, delays  # a load alone takes longer
    finally:
        worker.stop()


def _gone(worker: Worker) -> None:
    """Returns when the worker's child has left; a process that has ended but is not yet waited for has left too."""
    (child,) = worker.children()
    stat = Path(f"/proc/{child}/stat")
    with suppress(OSError):
        while stat.read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.002)


def _gap(worker: Worker) -> float:
    """The seconds between a child's end and the next one's start."""
    before = worker.children()
    _gone(worker)
    left = time.monotonic()
    while worker.children() in ([], before):
        time.sleep(0.002)
    return time.monotonic() - left


def _idle(worker: Worker) -> bool:
    """Whether the children that are there have been there for a moment."""
    before = worker.children()
    time.sleep(0.5)
    return worker.children() == before


def test_a_waiting_run_of_the_first_queue_goes_first(
    instance: dg.DagsterInstance, dagster_home: Path, redis_url: str, tmp_path: Path
) -> None:
    """Given a worker of all queues, if runs wait in each, I expect ingest, etl and backfill in this order."""
    notes = {name: tmp_path / name for name in ("blocker", "backfill", "etl", "ingest")}

    def sleep(name: str, seconds: float) -> str:
        queue = "ingest" if name == "blocker" else name
        config = {"ops": {"rest": {"config": {"seconds": seconds, "note": str(notes[name])}}}}
        return submit(instance, kit.sleeper, config, {"dagster-celery/queue": queue})

    worker = Worker(dagster_home, redis_url, children=1)
    try:
        runs = [sleep("blocker", 2.0)]
        wait_until("the worker is busy", notes["blocker"].exists)
        runs += [sleep(name, 0.05) for name in ("backfill", "etl", "ingest")]
        wait_until("all are done", lambda: succeeded(instance, *runs))
        order = sorted(("backfill", "etl", "ingest"), key=lambda name: notes[name].stat().st_mtime)
        assert order == ["ingest", "etl", "backfill"]
    finally:
        worker.stop()


def test_a_backfill_does_not_delay_a_worker_of_its_own_queue(
    instance: dg.DagsterInstance, dagster_home: Path, redis_url: str, tmp_path: Path
) -> None:
    others = Worker(dagster_home, redis_url, name="others", children=1, queues="etl,backfill")
    ingest = Worker(dagster_home, redis_url, name="ingest", children=1, queues="ingest")
    try:
        config = {"ops": {"rest": {"config": {"seconds": 5.0, "note": str(tmp_path / "note")}}}}
        long = [submit(instance, kit.sleeper, config, {"dagster-celery/queue": "backfill"}) for _ in range(3)]
        wait_until("a backfill runs", (tmp_path / "note").exists)
        run = submit(instance, kit.five)
        wait_until("the ingest run succeeds", lambda: succeeded(instance, run), 3)
        assert "SUCCESS" not in [status(instance, run) for run in long]
    finally:
        others.kill()
        ingest.stop()


def test_a_delivery_again_while_the_run_lives_does_nothing(
    instance: dg.DagsterInstance, dagster_home: Path, redis_url: str, tmp_path: Path
) -> None:
    """Given a visibility timeout of 1 s, if a run takes 4 s, I expect one execution and one outcome."""
    worker = Worker(dagster_home, redis_url, KIT_VISIBILITY="1")
    try:
        note = tmp_path / "note"
        config = {"ops": {"rest": {"config": {"seconds": 4.0, "note": str(note)}}}}
        run = submit(instance, kit.sleeper, config)
        wait_until("it was delivered again", lambda: "not executed" in worker.log.read_text(), 30)
        assert status(instance, run) == "STARTED"
        wait_until("the run succeeds", lambda: succeeded(instance, run), 30)
        assert [line.split()[0] for line in note.read_text().splitlines()] == ["start", "end"]
        assert kit.statuses(instance, run) == ["PIPELINE_SUCCESS"]
    finally:
        worker.stop()


def test_a_child_can_still_be_stopped_after_a_run(
    instance: dg.DagsterInstance, dagster_home: Path, redis_url: str
) -> None:
    """Given a child that has executed a run, if it gets SIGTERM, I expect it to go: Dagster leaves it deaf."""
    worker = Worker(dagster_home, redis_url, children=1)
    try:
        run = submit(instance, kit.five)
        wait_until("the run succeeds", lambda: succeeded(instance, run))
        time.sleep(0.3)
        (before,) = worker.children()
        os.kill(before, signal.SIGTERM)
        wait_until("another child is there", lambda: worker.children() not in ([], [before]))
        again = submit(instance, kit.five)
        wait_until("it executes runs", lambda: succeeded(instance, again))
    finally:
        worker.stop()


@pytest.mark.parametrize("state", ["unknown", "SUCCESS", "CANCELED", "CANCELING", "STARTED"])
def test_what_is_over_canceled_unknown_or_running_is_not_executed(instance: dg.DagsterInstance, state: str) -> None:
    origin = ReconstructableJob(ReconstructableRepository.for_module(kit.MODULE, "location"), "five")
    made = instance.create_run_for_job(
        kit.five,
        job_code_origin=origin.get_python_origin(),
        status=None if state == "unknown" else dg.DagsterRunStatus(state),
    )
    child = WarmChild(patience=1.0)
    if state == "unknown":
        instance.delete_run(made.run_id)
    assert child.execute(made.run_id) == 0
    if state != "unknown":
        assert status(instance, made.run_id) == state
        assert list(instance.all_logs(made.run_id)) == []
    child.forget()


def test_a_child_opens_another_instance_when_its_own_is_broken(instance: dg.DagsterInstance) -> None:
    child = WarmChild(patience=5.0, sleep=lambda seconds: None)
    child.warm()
    kept = child.instance()
    assert child.instance() is kept

    def broken(run_id: str) -> Any:
        raise OSError("the connection is gone")

    object.__setattr__(kept, "get_run_by_id", broken)
    assert child.execute("11111111-1111-1111-1111-111111111111") == 0
    assert child.instance() is not kept
    child.forget()


def test_two_jobs_that_take_turns_load_their_location_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A location whose origin has changed is another one."""
    loads = tmp_path / "loads"
    monkeypatch.setenv("KIT_LOADS", str(loads))
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])  # Dagster looks past the first
    (tmp_path / "old_jobs.py").write_text(DEFINITIONS)
    (tmp_path / "new_jobs.py").write_text(DEFINITIONS.replace('"v1"', '"v2"'))

    def version(module: str, job: str) -> str:
        origin = ReconstructableJob(ReconstructableRepository.for_module(module, "defs"), job).get_python_origin()
        return WarmJob.from_origin(origin, [f"{module}:defs"]).get_definition().tags["version"]

    assert [version("old_jobs", job) for job in ("a", "b", "a", "b")] == ["v1"] * 4
    assert loads.read_text().count("\n") == 1
    assert version("new_jobs", "a") == "v2"
    assert loads.read_text().count("\n") == 2


DEFINITIONS = """
import os
import dagster as dg

@dg.op
def nothing(): pass

def make(name):
    @dg.job(name=name, tags={"version": "v1"})
    def it():
        nothing()
    return it

def defs():
    with open(os.environ["KIT_LOADS"], "a") as file:
        file.write("load\\n")
    return dg.Definitions(jobs=[make("a"), make("b")])
"""


def test_preloading_complains_about_threads(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait, name="a-thread")
    preload_parent([thread.start], [])
    stop.set()
    thread.join()
    assert "a-thread" in caplog.text


def test_workers_sign_in_with_what_they_do_and_the_dead_and_the_hanging_are_forgotten(
    instance: dg.DagsterInstance, dagster_home: Path, redis_url: str, tmp_path: Path
) -> None:
    """Given two workers, if a run is executed, I expect it counted; if one is killed and one stopped, none alive;
    if that one goes on, it is back."""
    note = tmp_path / "note"
    workers = [
        Worker(dagster_home, redis_url, name="one", children=1),
        Worker(dagster_home, redis_url, name="two", children=2),
    ]
    try:
        with connect(redis_url) as client:
            board = WorkerBoard(client)
            assert board.read() == Workers(2, 0, 3, 0)
            config = {"ops": {"rest": {"config": {"seconds": 4.0, "note": str(note)}}}}
            run = submit(instance, kit.sleeper, config)
            wait_until("the run is counted", lambda: board.read() == Workers(2, 1, 3, 1), 15)
            wait_until("the run succeeds", lambda: succeeded(instance, run))
            wait_until("nobody is busy", lambda: board.read() == Workers(2, 0, 3, 0), 5)
            workers[0].kill()
            workers[1].process.send_signal(signal.SIGSTOP)
            wait_until("both are forgotten", lambda: board.read() == Workers(0, 0, 0, 0), 12)
            workers[1].process.send_signal(signal.SIGCONT)
            wait_until("it is back", lambda: board.read() == Workers(1, 0, 2, 0), 5)
    finally:
        for worker in workers:
            worker.stop()


def test_the_app_has_the_task_names_of_dagster_celery() -> None:
    app: Celery = build_worker_app("memory://", "cache+memory://", queues=["ingest"], max_tasks_per_child=7)
    assert {"execute_job", "resume_job"} <= set(app.tasks)
    assert app.conf.worker_max_tasks_per_child == 7
