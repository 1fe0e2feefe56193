"""Questions to the Dagster UI are bounded in text, depth, width and bytes; without a login it is for loopback."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import get_introspection_query

from pipeline_platform_tests.acceptance.stacks import COMMAND, Up
from pipeline_platform_tests.security.dagster_ui import LAUNCH, Doors


@pytest.fixture(scope="module")
def doors(up: Up) -> Doors:
    return Doors.of(up)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("{ " + "a { " * 15 + "b" + " }" * 16, "fields deep"),
        ("{ " + "a { " * 5000 + "b" + " }" * 5001, "nested too deeply"),
        ("{" + " version" * 5001 + "}", "fields; this one has more"),
        ("{ version }" + " " * 65536, "KiB of text"),
        ("{ ...a } fragment a on Query { ...a }", "contains itself"),
        (
            "{ ...f0 } "
            + " ".join(f"fragment f{n} on Query {{ ...f{n + 1} ...f{n + 1} }}" for n in range(30))
            + " fragment f30 on Query { version }",
            "fields; this one has more",
        ),
        ("{ version", "Syntax Error"),
    ],
    ids=["deep", "very deep", "wide", "long", "endless", "exponential", "broken"],
)
def test_graphql_is_bounded(doors: Doors, query: str, said: str) -> None:
    answer = doors.key("viewer").post(query)
    assert answer.status_code == 400
    assert said in answer.json()["errors"][0]["message"]


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"[]", b"null", b"1", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"query": 1}'),
        *(b'{"query": "{version}", "variables": []}', b'{"query": "{version}", "variables": "{"}'),
        b'{"query": "{version}", "operationName": 1}',
    ],
)
def test_a_body_that_is_no_question_is_a_400(doors: Doors, body: bytes) -> None:
    answer = doors.key("viewer").ask("POST", "/graphql", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400, answer.text


def test_variables_that_do_not_fit_are_the_senders_mistake(doors: Doors) -> None:
    """Given a field that the input type has not, I expect a 400; Dagster itself says 500."""
    answer = doors.key("viewer").post(LAUNCH, params={"selector": {"repositoryNam": "x"}})
    assert answer.status_code == 400
    assert "got invalid value" in answer.json()["errors"][0]["message"]


def test_a_large_body_is_refused_declared_or_not(doors: Doors) -> None:
    person = doors.key("admin")
    json_type = {"Content-Type": "application/json"}
    assert person.ask("POST", "/graphql", data=b"x" * (2**20 + 1), headers=json_type).status_code == 413

    def chunks() -> Iterator[bytes]:
        for _ in range(17):
            yield b"x" * 2**16

    assert person.ask("POST", "/graphql", data=chunks(), headers=json_type).status_code == 413


def test_what_the_ui_itself_asks_is_within_the_bounds(doors: Doors) -> None:
    """The deepest question that anybody asks there: GraphiQL's for the schema."""
    assert "__schema" in doors.key("viewer").graphql(get_introspection_query())


def test_up_without_a_login_binds_to_loopback_only(tmp_path: Path) -> None:
    command = [*COMMAND, "up", "--state-dir", str(tmp_path / "s"), "--host", "0.0.0.0"]
    env = {"PATH": "/usr/bin:/bin", "PIPELINE_DAGSTER_LOGIN": "off", "HOME": str(tmp_path)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "PIPELINE_DAGSTER_LOGIN=off" in done.stdout + done.stderr
