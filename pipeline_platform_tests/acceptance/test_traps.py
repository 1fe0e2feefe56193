"""What quietly doubles or delays runs elsewhere, done on purpose; afterwards every event is where it belongs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from pipeline_platform.local.probes import answers_at
from pipeline_platform.local.process_table import find
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.fleet import Fleet
from pipeline_platform_tests.oracle import Load, Producer, differences, settled, wait_for
from pipeline_platform_tests.other_host import allowed

LAUNCH = """
mutation ($job: String!, $queue: String!) {
  launchRun(executionParams: {
    selector: {repositoryLocationName: "pipeline_platform", repositoryName: "__repository__", jobName: $job}
    executionMetadata: {tags: [{key: "dagster-celery/queue", value: $queue}]}
  }) { __typename ... on LaunchRunSuccess { run { runId } } }
}
"""
STATUS = "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"


@pytest.fixture(scope="module")
def up() -> Iterator[Up]:
    """A platform that delivers a run again after 2 s, with a child to spare for it, and that plans small batches."""
    env = {"PIPELINE_REDELIVER_AFTER": "2", "PIPELINE_BATCH_MAX_EVENTS": "100", "PIPELINE_RUNS_PER_SECOND": "50"}
    stack = Up("--workers", "2", env=env)
    try:
        yield stack.start()
    finally:
        stack.remove()


@pytest.fixture(scope="module")
def where(up: Up) -> dict[str, Any]:
    """Where it is."""
    return up.status()


@pytest.fixture(scope="module")
def producer(where: dict[str, Any]) -> Producer:
    """The one client: what it sent is all that there is."""
    return Producer(where["gateway_url"], where["api_key"], random.Random(11))


@contextmanager
def held(warehouse_url: str, table: str, mode: str) -> Iterator[None]:
    """The table is locked meanwhile: what needs it takes as long."""
    with psycopg.connect(warehouse_url) as connection:
        connection.execute(f"lock table {table} in {mode} mode")
        yield
        connection.rollback()


def accepted(producer: Producer) -> int:
    """How many events it was told are accepted."""
    return sum(request.events for request in producer.requests if request.outcome == "acknowledged")


def settle(where: dict[str, Any], producer: Producer) -> None:
    """Everything accepted is loaded, once."""
    events = accepted(producer)
    assert events > 0
    wait_for("everything accepted is loaded", lambda: settled(where["warehouse_url"], events), 120)
    assert differences(where["warehouse_url"], producer.requests) == []


def ask(where: dict[str, Any], query: str, **variables: str) -> Any:
    """Dagster's answer."""
    answer = requests.post(
        f"{where['dagster_url']}/graphql",
        json={"query": query, "variables": variables},
        headers={"Authorization": f"Bearer {where['api_key']}"},
        timeout=30,
    ).json()
    assert "errors" not in answer, answer
    return next(iter(answer["data"].values()))


def loaded(where: dict[str, Any]) -> int:
    """How many batches are loaded."""
    with psycopg.connect(where["warehouse_url"]) as connection:
        row = connection.execute("select count(*) from assets where state = 'loaded'").fetchone()
    assert row is not None
    return int(row[0])


def test_a_run_that_outlives_its_visibility_timeout_is_not_executed_twice(
    up: Up, where: dict[str, Any], producer: Producer
) -> None:
    """Given deliveries that come again after 2 s, if loads take 8 s, I expect every event once."""
    with held(where["warehouse_url"], "telemetry_events", "share"):
        producer.send(50)
        wait_for("the run was delivered again while it lived", lambda: "is STARTED: not executed" in up.log, 30)
        with Load(producer, pause=0.2):
            time.sleep(4)
    settle(where, producer)


def test_no_ingest_run_waits_for_other_runs(where: dict[str, Any], producer: Producer) -> None:
    """Given runs of etl and backfill that never end, if events come in, I expect them loaded at once."""
    before = accepted(producer)
    with held(where["warehouse_url"], "orders_events", "access exclusive"):
        runs = [
            ask(where, LAUNCH, job="check_streams", queue=queue)["run"]["runId"]
            for queue in ("backfill", "etl", "backfill")
        ]
        wait_for("one of them runs", lambda: "STARTED" in _statuses(where, runs), 30)
        sent = producer.send(50)
        took = wait_for("it is loaded", lambda: settled(where["warehouse_url"], before + sent.events), 15)
        print(f"loaded {took:.1f} s after the answer")
        assert set(_statuses(where, runs)) <= {"STARTED", "STARTING"}
    settle(where, producer)
    wait_for("the others end", lambda: set(_statuses(where, runs)) == {"SUCCESS"}, 60)


@pytest.mark.skipif(not allowed(), reason="network namespaces need root (CAP_SYS_ADMIN)")
def test_workers_on_other_hosts_share_the_load_and_double_nothing(
    up: Up, where: dict[str, Any], producer: Producer
) -> None:
    """Given a worker in each of two network namespaces beside that of `up`, I expect all at work, nothing doubled."""
    fleet = Fleet(up, namespaces=True)
    try:
        fleet.add("first")
        fleet.add("second")
        hosts = {up.pid("worker"), *fleet.pids}
        with Load(producer):
            wait_for("each host has executed runs", lambda: hosts <= _executed(up), 60)
        settle(where, producer)
        assert fleet.forwarded >= 4  # each has its PostgreSQL and its Redis from here
    finally:
        fleet.stop()


def test_a_stale_code_server_cannot_share_the_socket_and_cannot_double_anything(
    up: Up, where: dict[str, Any], producer: Producer
) -> None:
    """Given a stale server that took the socket while ours was dead, I expect a loud complaint and every event once."""
    code = up.pid("code")
    environment = dict(
        item.split("=", 1) for item in Path(f"/proc/{code}/environ").read_bytes().decode().split("\0") if item
    )
    path = environment["PIPELINE_CODE_SOCKET"]
    another = [sys.executable, "-m", "pipeline_platform.orchestration.runtime.code_server", "--socket", path]
    another += ["--module-name", "pipeline_platform.orchestration.definitions"]
    another += ["--location-name", "pipeline_platform", "--max-workers", "20"]

    owner = os.stat(f"/proc/{code}")  # whom services run as, where root starts them
    account: dict[str, Any] = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if owner.st_uid else {}

    second = subprocess.run(
        another, env=environment, capture_output=True, text=True, timeout=60, check=False, **account
    )
    assert second.returncode != 0
    assert f"The socket {path} is taken" in second.stderr

    assert up.process is not None
    with Load(producer, pause=0.3):
        up.process.send_signal(signal.SIGSTOP)  # so that it does not start another at once
        os.kill(code, signal.SIGKILL)
        answers = answers_at(Path(path))
        wait_for("the killed one is gone", lambda: not answers(), 30)
        stale = subprocess.Popen(
            another,
            env=environment | {"PIPELINE_BATCH_MAX_EVENTS": "50"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **account,
        )
        try:
            wait_for("the stale server answers", answers, 60)
            up.process.send_signal(signal.SIGCONT)
            wait_for("`up` complains", lambda: f"The socket {path} is taken" in up.log, 60)
            before = loaded(where)
            wait_for("the stale one plans", lambda: loaded(where) > before, 30)
        finally:
            stale.kill()
            stale.wait()
            up.process.send_signal(signal.SIGCONT)
        wait_for("ours is back", lambda: bool(up.status()["healthy"]), 60)
    settle(where, producer)


def _statuses(where: dict[str, Any], runs: list[str]) -> list[str]:
    return [ask(where, STATUS, id=run)["status"] for run in runs]


def _executed(up: Up) -> set[int]:
    """The processes that have executed runs and live, and all their ancestors: workers are among them."""
    with psycopg.connect(up.dagster_database_url) as connection:
        rows = connection.execute(
            "select distinct substring(event from 'Started process for run .pid: ([0-9]+)')::int from event_logs "
            "where event like '%Started process for run%'"
        ).fetchall()
    return {ancestor for (pid,) in rows for ancestor in _line(pid)}


def _line(pid: int) -> Iterator[int]:
    """The process, its parent, and so on."""
    while process := find(pid):
        yield pid
        pid = process.parent
