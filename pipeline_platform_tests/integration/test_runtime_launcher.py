"""Health and termination over real servers, real workers and Dagster's own monitoring."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import redis
from dagster._core.launcher import WorkerStatus

from pipeline_platform.orchestration.runtime.launcher import WarmCeleryRunLauncher
from pipeline_platform.orchestration.runtime.run_watch import Health, RunWatch
from pipeline_platform_tests.integration import runtime_worker_kit as kit
from pipeline_platform_tests.integration.runtime_worker_kit import Worker, status, submit, wait_until

pytestmark = [pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def worker(instance: dg.DagsterInstance, dagster_home: Path, redis_url: str) -> Iterator[Worker]:
    worker = Worker(dagster_home, redis_url)
    yield worker
    worker.stop()


@pytest.fixture
def daemon(instance: dg.DagsterInstance, dagster_home: Path) -> Iterator[subprocess.Popen[bytes]]:
    yield from kit.monitored(dagster_home)


class Sleeper:
    """A run that sleeps, started."""

    def __init__(self, instance: dg.DagsterInstance, note: Path, seconds: float, *, started: bool = True) -> None:
        self.note, self.instance = note, instance
        self.id = submit(instance, kit.sleeper, {"ops": {"rest": {"config": {"seconds": seconds, "note": str(note)}}}})
        if started:
            wait_until("the run sleeps", lambda: note.exists() and note.read_text().endswith("\n"))

    @property
    def pid(self) -> int:
        return int(self.note.read_text().split()[1])

    @property
    def status(self) -> str:
        return status(self.instance, self.id)


def test_a_killed_child_a_killed_worker_and_a_stopped_one_fail_within_15_s_and_a_live_run_is_left_alone(
    instance: dg.DagsterInstance, dagster_home: Path, redis_url: str, tmp_path: Path, daemon: object
) -> None:
    """Four workers with a run each. If three die in their ways, I expect three failures in 15 s, and one success."""
    names = ("child", "whole", "stopped", "live")
    workers: dict[str, Worker] = {}
    runs: dict[str, Sleeper] = {}
    try:
        for name in names:
            workers[name] = Worker(dagster_home, redis_url, name=name, children=1, ready=False)
        for name in names:
            workers[name].wait()
        for name in names:  # a worker whose child is busy takes no second run
            runs[name] = Sleeper(instance, tmp_path / name, 22.0)
        home = {int(child): name for name in names for child in workers[name].children()}
        runs = {home[run.pid]: run for run in runs.values()}
        os.kill(runs["child"].pid, signal.SIGKILL)
        workers["whole"].kill()
        for pid in (workers["stopped"].process.pid, *workers["stopped"].children()):
            os.kill(pid, signal.SIGSTOP)
        start = time.monotonic()
        took: dict[str, float] = {}
        while len(took) < 3:
            took |= {n: time.monotonic() - start for n in names if n not in took and runs[n].status == "FAILURE"}
            assert time.monotonic() - start < 15, took
            time.sleep(0.1)
        print("seconds until FAILURE:", {name: round(seconds, 1) for name, seconds in took.items()})
        assert "live" not in took
        late = runs["stopped"].pid
        for pid in (workers["stopped"].process.pid, *workers["stopped"].children()):
            os.kill(pid, signal.SIGCONT)
        wait_until("what wakes up late is killed", lambda: not Path(f"/proc/{late}").exists(), 5)
        wait_until("the live run ends", lambda: runs["live"].status != "STARTED", 40)
        assert {name: runs[name].status for name in names} == dict.fromkeys(names, "FAILURE") | {"live": "SUCCESS"}
        assert kit.statuses(instance, runs["live"].id) == ["PIPELINE_SUCCESS"]
    finally:
        for worker in workers.values():
            worker.stop()


def test_terminating_a_run_that_executes_cancels_it_and_kills_it_when_it_is_deaf(
    instance: dg.DagsterInstance, worker: Worker, tmp_path: Path
) -> None:
    run = Sleeper(instance, tmp_path / "note", 30.0)
    assert instance.run_coordinator.cancel_run(run.id)
    assert run.status == "CANCELED"
    assert kit.statuses(instance, run.id) == ["PIPELINE_CANCELED"]
    assert not instance.run_launcher.terminate(run.id)
    again = submit(instance, kit.five)
    wait_until("the worker goes on", lambda: status(instance, again) == "SUCCESS")

    run = Sleeper(instance, tmp_path / "deaf", 60.0)
    os.kill(run.pid, signal.SIGSTOP)
    launcher = instance.run_launcher
    assert isinstance(launcher, WarmCeleryRunLauncher)
    assert launcher._timeout + launcher._grace + launcher._timeout <= 5.0  # asked, waited for, killed
    launcher._grace = 0.5
    assert launcher.terminate(run.id)
    assert run.status == "CANCELED"
    wait_until("its process is gone", lambda: not Path(f"/proc/{run.pid}").exists(), 5)


def test_terminating_a_run_that_waits_cancels_it_and_nobody_executes_it(
    instance: dg.DagsterInstance, dagster_home: Path, redis_url: str, tmp_path: Path
) -> None:
    """Given a worker that was not there when the run was terminated, if it gets the task, I expect nothing."""
    run = Sleeper(instance, tmp_path / "note", 1.0, started=False)
    assert instance.run_launcher.terminate(run.id)
    assert run.status == "CANCELED"
    worker = Worker(dagster_home, redis_url)
    try:
        wait_until("the task has arrived", lambda: "not executed" in worker.log.read_text())
        assert not run.note.exists()
        assert kit.statuses(instance, run.id) == ["PIPELINE_CANCELED"]
    finally:
        worker.stop()


def test_twenty_looks_are_one_question(
    instance: dg.DagsterInstance, worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Sleeper(instance, tmp_path / "note", 4.0)
    launcher: Any = instance.run_launcher
    asked = []
    ask = launcher._watch.ask

    def counting(expected: int | None) -> Any:
        asked.append(expected)
        return ask(expected)

    monkeypatch.setattr(launcher._watch, "ask", counting)
    found = instance.get_run_by_id(run.id)
    assert found is not None
    for _ in range(20):
        assert launcher.check_run_worker_health(found).status == WorkerStatus.RUNNING
    assert asked == [None]
    time.sleep(2)
    launcher._timeout, start = 10.0, time.monotonic()
    assert launcher.check_run_worker_health(found).status == WorkerStatus.RUNNING
    assert asked == [None, 1]  # as many answers as last time are waited for, and no longer
    assert time.monotonic() - start < 5


class Workers:
    """Workers that have tasks, or are down; and the time."""

    def __init__(self, **tasks: set[str]) -> None:
        self.tasks, self.now, self.asked, self.down = tasks, 0.0, 0, False
        self.watch = RunWatch(self.ask, silence=5, outage=45, clock=lambda: self.now, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def ask(self, expected: int | None) -> dict[str, frozenset[str]]:
        self.asked += 1
        if self.down:
            raise ConnectionError("no broker")
        return {name: frozenset(tasks) for name, tasks in list(self.tasks.items())[:expected]}

    def look(self, seconds: float = 0.0) -> Health:
        self.now += seconds
        return self.watch.look("t")


def test_a_task_that_its_worker_no_longer_has_is_gone() -> None:
    workers = Workers(one={"t"}, two=set())
    assert workers.look() is Health.ALIVE
    workers.tasks["one"] = set()
    assert workers.look(1.0) is Health.ALIVE  # the answer is still fresh
    assert workers.look(1.0) is Health.GONE
    workers.tasks["two"] = {"t"}  # or it has moved
    assert workers.look(3.0) is Health.ALIVE


def test_a_silent_worker_is_given_its_time_and_more_after_an_outage() -> None:
    workers = Workers(one={"t"}, two=set())
    assert workers.look() is Health.ALIVE
    gone = workers.tasks.pop("one")
    assert [workers.look(3.0) for _ in range(3)] == [Health.UNSURE, Health.UNSURE, Health.SILENT]
    workers.tasks["one"] = gone
    assert workers.look(3.0) is Health.ALIVE
    workers.tasks.pop("one")
    workers.down = True
    for _ in range(3):
        with pytest.raises(ConnectionError):
            workers.look(2.0)
    workers.down = False
    assert [workers.look(10.0) for _ in range(4)] == [Health.UNSURE] * 4
    assert workers.look(20.0) is Health.SILENT


def test_a_new_worker_is_found_though_fewer_answers_were_expected() -> None:
    workers = Workers(one=set())
    assert workers.look() is Health.UNSURE
    workers.tasks["two"] = {"t"}
    assert workers.look(3.0) is Health.ALIVE


def test_without_a_broker_nothing_is_said_about_a_run(dagster_url: str, tmp_path: Path) -> None:
    home = kit.home(tmp_path / "home", dagster_url, "redis://127.0.0.1:1/0")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = instance.create_run_for_job(kit.five, status=dg.DagsterRunStatus.STARTED)
        assert instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING


def test_a_launch_opens_no_connection(instance: dg.DagsterInstance, redis_url: str) -> None:
    submit(instance, kit.five)
    with redis.Redis.from_url(redis_url) as client:
        before = client.info("stats")["total_connections_received"]
        for _ in range(5):
            submit(instance, kit.five)
        assert client.info("stats")["total_connections_received"] == before


def test_runs_are_not_resumed(instance: dg.DagsterInstance) -> None:
    assert instance.run_launcher.supports_check_run_worker_health
    assert not instance.run_launcher.supports_resume_run


def test_a_run_that_the_broker_does_not_take_has_failed_at_once(dagster_url: str, tmp_path: Path) -> None:
    """If the launch fails, I expect FAILURE now, not after the start timeout: the planner waits for it."""
    home = kit.home(tmp_path / "home", dagster_url, "redis://127.0.0.1:1/0")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        with pytest.raises(Exception, match=r"refused|connect"):
            submit(instance, kit.five)
        (run,) = instance.get_runs()
        assert run.status is dg.DagsterRunStatus.FAILURE


def test_an_event_log_that_takes_no_note_does_not_keep_a_run_from_its_queue(
    instance: dg.DagsterInstance, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError("planted: no space left on device")

    monkeypatch.setattr(instance, "report_engine_event", full)
    submit(instance, kit.five)
    with redis.Redis.from_url(redis_url) as client:
        assert client.llen("ingest") == 1


def test_a_run_that_waits_is_not_lost_and_one_that_nobody_has_is(
    instance: dg.DagsterInstance, worker: Worker, redis_url: str
) -> None:
    """Given a run in a queue that nobody takes from, if its message goes too, I expect it to be lost in seconds."""
    launcher = instance.run_launcher
    assert isinstance(launcher, WarmCeleryRunLauncher)
    id = submit(instance, kit.five, tags={"dagster-celery/queue": "elsewhere"})
    run = instance.get_run_by_id(id)
    assert run is not None
    assert not launcher.is_lost(run)
    with redis.Redis.from_url(redis_url) as client:
        assert client.lpop("elsewhere")
    wait_until("it is lost", lambda: launcher.is_lost(run), 10)
