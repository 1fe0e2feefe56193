"""Mutated requests against the Dagster UI: no 5xx, no growth, no hang. PIPELINE_MUTATIONS makes it longer."""

from __future__ import annotations

import asyncio
import json
import os

import pytest
from graphql import get_introspection_query

from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.security.dagster_ui import SELECTOR, Doors
from pipeline_platform_tests.security.mutated_requests import Seed, attack
from pipeline_platform_tests.security.test_mutated_requests import GROWTH, SEED, resident

COUNT = int(os.environ.get("PIPELINE_MUTATIONS", "600"))
QUERIES = (
    "{ version }",
    "{ runsOrError(limit: 2) { ... on Runs { results { runId status tags { key value } } } } }",
    "{ assetNodes { assetKey { path } } }",
    "{ instance { info } permissions { permission value } }",
    get_introspection_query(descriptions=False),
)


def seeds(viewer: str, operator: str, base: str) -> list[Seed]:
    """Requests of every kind that the UI takes; a viewer's change nothing."""
    key = f"Authorization: Bearer {viewer}"
    more = f"Authorization: Bearer {operator}"
    json_type = "Content-Type: application/json"
    found = [
        Seed("GET", path, (key,)) for path in ("/", "/runs", "/server_info", "/whoami", "/graphql", "/favicon.png")
    ]
    found += [Seed("GET", f"/download_debug/{run}", (more,)) for run in ("x", "00000000-0000-0000-0000-000000000000")]
    found += [Seed("POST", "/graphql", (key, json_type), json.dumps({"query": query}).encode()) for query in QUERIES]
    launch = "mutation L($p: ExecutionParams!) { launchRun(executionParams: $p) { __typename } }"
    body = {"query": launch, "variables": {"p": {"selector": SELECTOR}}, "operationName": "L"}
    found += [Seed("POST", "/graphql", (key, json_type), json.dumps(body).encode()) for _ in range(3)]
    form = "Content-Type: application/x-www-form-urlencoded"
    found += [
        Seed("POST", path, (form, f"Origin: {base}"), b"name=x&secret=y&code=z") for path in ("/login", "/login/code")
    ]
    return found


@pytest.mark.timeout(3600)
def test_mutated_requests_do_the_ui_no_harm(up: Up) -> None:
    print(f"PIPELINE_FUZZ_SEED={SEED}")
    doors, pid = Doors.of(up), up.pid("dagster")
    good = seeds(doors.keys["viewer"], doors.keys["operator"], doors.base)
    asyncio.run(attack(doors.base, good, "/server_info", COUNT // 2, SEED, at_once=8))  # pools are filled
    before = resident(pid)
    report = asyncio.run(attack(doors.base, good, "/server_info", COUNT, SEED + 1, at_once=8))
    doors.forget_tries()
    print(report.statuses)
    assert report.failures == []
    assert report.statuses[200] > 0
    assert report.statuses[400] > COUNT / 20
    assert resident(pid) - before < GROWTH
