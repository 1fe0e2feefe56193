"""F1: no password of the platform stands in anything that Dagster shows, keeps or gives away."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from dagster._grpc.client import DagsterGrpcClient

from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import wait_for
from pipeline_platform_tests.security.haystack import logs, needles, pages, rows


@pytest.fixture(scope="module")
def where(up: Up) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((up.state_dir / "connections.json").read_text())
    return found


@pytest.fixture(scope="module", autouse=True)
def _runs(up: Up, where: dict[str, Any]) -> None:
    """Ingest runs and one of prices have ended, so that there is something to look into."""

    def ended() -> bool:
        with psycopg.connect(where["dagster_database_url"]) as connection:
            jobs = connection.execute("select distinct pipeline_name from runs where status = 'SUCCESS'").fetchall()
        return len(jobs) >= 3

    wait_for("runs of three jobs have succeeded", ended, 120)


def _expect_none(up: Up, haystack: Iterable[tuple[str, bytes]], at_least: int) -> None:
    found, looked = [], 0
    wanted = needles(up.state_dir)
    for place, content in haystack:
        looked += 1
        found += [f"{name} in {place}" for name, spellings in wanted.items() if any(s in content for s in spellings)]
    assert found == []
    assert looked >= at_least


def test_no_page_and_no_debug_file_shows_a_secret(up: Up) -> None:
    _expect_none(up, pages(up), 20)


def test_no_table_of_dagster_holds_a_secret(up: Up, where: dict[str, Any]) -> None:
    """Snapshots are compressed: they are looked into as well."""
    _expect_none(up, rows(where["dagster_database_url"]), 1000)


def test_no_table_of_the_warehouse_holds_a_secret(up: Up, where: dict[str, Any]) -> None:
    _expect_none(up, rows(where["warehouse_url"]), 1000)


def test_no_log_and_no_file_of_dagster_holds_a_secret(up: Up) -> None:
    _expect_none(up, logs(up.state_dir), 8)


def test_the_search_finds_what_is_there(up: Up, where: dict[str, Any], tmp_path: Path) -> None:
    """Given a secret planted in a snapshot, the search above must see it."""
    secret = (up.state_dir / "secrets" / "loader").read_text().strip()
    with psycopg.connect(where["dagster_database_url"], autocommit=True) as connection:
        body = zlib.compress(json.dumps({"loader_url": f"postgresql://loader:{secret}@h/w"}).encode())
        connection.execute(
            "insert into snapshots (snapshot_id, snapshot_body, snapshot_type) values ('planted', %s, 'JOB')", [body]
        )
        try:
            with pytest.raises(AssertionError, match=r"snapshots\.snapshot_body"):
                _expect_none(up, rows(where["dagster_database_url"]), 1)
        finally:
            connection.execute("delete from snapshots where snapshot_id = 'planted'")


def test_a_run_cannot_replace_a_resource(up: Up) -> None:
    """Given run config that names another queue (F2: SSRF), I expect the launch to be refused."""
    launch = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
      __typename ... on RunConfigValidationInvalid { errors { message } } } }"""
    selector = {
        "repositoryName": "__repository__",
        "repositoryLocationName": "pipeline_platform",
        "pipelineName": "check_streams",
    }
    for resource, config in (
        ("ingest_queue", {"url": "redis://127.0.0.1:3496"}),
        ("warehouse", {"loader_url": "postgresql://x@127.0.0.1:1/x"}),
        ("price_sources", {"demo_url": "http://127.0.0.1:3497"}),
        ("alert_routes", {"allow_private": True}),
    ):
        params = {"selector": selector, "runConfigData": {"resources": {resource: {"config": config}}}}
        answer = json.loads(up.graphql_bytes(launch, params=params))["data"]["launchRun"]
        assert answer["__typename"] == "RunConfigValidationInvalid", answer


def test_no_service_listens_on_tcp_for_code(up: Up) -> None:
    """The code server has its socket, in a folder that is its owner's alone."""
    folder = up.state_dir / "run" / "services" / "code"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "code.sock").is_socket()
    client = DagsterGrpcClient(socket=str(folder / "code.sock"))
    assert client.ping("x")["echo"] == "x"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_of_the_machine_does_not_reach_the_code_server(up: Up) -> None:
    path = up.state_dir / "run" / "services" / "code" / "code.sock"
    script = (
        "import os, socket, sys; s = socket.socket(socket.AF_UNIX); os.setgroups([]); os.setgid(65533); "
        "os.setuid(65533); s.connect(sys.argv[1])"
    )
    tried = subprocess.run(
        [sys.executable, "-I", "-S", "-c", script, str(path)], capture_output=True, text=True, check=False
    )
    assert "PermissionError" in tried.stderr
    with socket.socket(socket.AF_UNIX) as ours:  # the same path, by who may
        ours.connect(str(path))
