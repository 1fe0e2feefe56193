"""Each role does in the Dagster UI what is the role's; what is done there says who did it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from pipeline_platform.local.dagster_api import ENDED
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import wait_for
from pipeline_platform_tests.security.dagster_ui import Doors, Person
from pipeline_platform_tests.security.mutations import FIELDS, HARMLESS, mutation, what_there_is

TERMINATE = "mutation End($run: String!) { terminateRun(runId: $run) { __typename } }"


@pytest.fixture(scope="module")
def doors(up: Up) -> Doors:
    return Doors.of(up)


@pytest.fixture(scope="module")
def known(up: Up, doors: Doors) -> Iterator[dict[str, Any]]:
    """What the mutations are about; the run waits in a queue that no worker takes from."""
    wait_for("the demo's backfill has ended", lambda: any(each["status"] in ENDED for each in up.backfills()), 240)
    run = doors.key("admin").launch({"dagster-celery/queue": "nobody"})["run"]["runId"]
    yield what_there_is(up, run)
    assert "UnauthorizedError" not in doors.key("admin").post(TERMINATE, run=run).text


def _permissions(person: Person) -> dict[str, bool]:
    query = """{ permissions { permission value disabledReason }
      workspaceOrError { ... on Workspace { locationEntries { permissions { permission value } } } } }"""
    found = person.graphql(query)
    everywhere = {each["permission"]: each["value"] for each in found["permissions"]}
    for entry in found["workspaceOrError"]["locationEntries"]:
        assert all(everywhere[each["permission"]] == each["value"] for each in entry["permissions"])
    return everywhere


@pytest.mark.parametrize("how", ["key", "session"])
def test_roles_are_dagsters_own_permissions(doors: Doors, how: str) -> None:
    viewer, operator, admin = (_permissions(getattr(doors, how)(role)) for role in ("viewer", "operator", "admin"))
    assert not any(viewer.values())
    assert {name for name, may in operator.items() if may} == {
        "launch_pipeline_execution",
        "launch_pipeline_reexecution",
        "terminate_pipeline_execution",
        "start_schedule",
        "stop_running_schedule",
        "edit_sensor",
        "launch_partition_backfill",
        "cancel_partition_backfill",
    }
    assert {name for name, may in admin.items() if not may} == {"edit_app_managed_components"}


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_every_mutation_of_dagster_is_refused_to_a_viewer(doors: Doors, known: dict[str, Any], name: str) -> None:
    """A newer Dagster with a mutation that asks for no permission fails here."""
    query, variables = mutation(name, known)
    answer = doors.key("viewer").post(query, **variables)
    if name in HARMLESS:
        assert "Unauthorized" not in answer.text
        return
    refused = ("UnauthorizedError", "You do not have permission")
    assert any(words in answer.text for words in refused), (answer.text, variables)


def test_there_are_as_many_mutations_as_expected() -> None:
    """So that the test above is not about an empty list."""
    assert len(FIELDS) >= 40
    assert set(FIELDS) > HARMLESS


def test_a_viewer_reports_no_events_of_assets(doors: Doors) -> None:
    for path in ("report_asset_materialization", "report_asset_check", "report_asset_observation"):
        for person in (doors.key("viewer"), doors.key("operator")):
            answer = person.ask("POST", f"/{path}/warehouse/telemetry_events", json={"check_name": "x", "passed": True})
            assert answer.status_code == 401, (path, answer.text)


def test_what_runs_print_is_for_operators(up: Up, doors: Doors) -> None:
    run = up.graphql("{ runsOrError(limit: 1) { ... on Runs { results { runId } } } }")["runsOrError"]["results"][0]
    path = f"/download_debug/{run['runId']}"
    assert doors.key("viewer").ask("GET", path).status_code == 403
    assert doors.key("operator").ask("GET", path).status_code == 200
    assert doors.key("operator").ask("GET", f"/download_debug/{uuid.uuid4()}").status_code == 404
    assert doors.key("operator").ask("GET", "/download_debug/nothing").status_code == 404
    for closed in ("/logs/x/y/stdout", "/notebook?repoLocName=x", "/dagit/notebook?x=1"):
        assert doors.key("viewer").ask("GET", closed).status_code == 403


def test_an_instances_configuration_is_for_admins(doors: Doors) -> None:
    query = "{ instance { info } }"
    assert doors.key("viewer").graphql(query)["instance"]["info"] is None
    assert "storage" in doors.key("admin").graphql(query)["instance"]["info"]


def _tags_of(up: Up, run: str) -> dict[str, str]:
    query = "query T($run: ID!) { runOrError(runId: $run) { ... on Run { tags { key value } } } }"
    return {each["key"]: each["value"] for each in up.graphql(query, run=run)["runOrError"]["tags"]}


def test_a_run_says_who_launched_it_whatever_the_request_says(up: Up, doors: Doors) -> None:
    operator = doors.session("operator")
    launched = operator.launch({"pipeline/user": "somebody else", "mine": "kept"})
    assert launched["__typename"] == "LaunchRunSuccess", launched
    name = operator.ask("GET", "/whoami").json()["name"]
    tags = _tags_of(up, launched["run"]["runId"])
    assert (tags["pipeline/user"], tags["mine"]) == (name, "kept")
    assert doors.session("viewer").launch()["__typename"] == "UnauthorizedError"


def test_mutations_and_logins_are_in_the_audit(up: Up, doors: Doors) -> None:
    where = json.loads((up.state_dir / "connections.json").read_text())
    cookie = doors.log_in(doors.keys["operator"]).cookies["pp_session"]
    person = Person(doors.base, cookies={"pp_session": cookie})
    name = person.ask("GET", "/whoami").json()["name"]
    launched = person.launch()["run"]["runId"]
    doors.session("viewer").launch()

    def entries() -> list[tuple[Any, ...]]:
        with psycopg.connect(where["warehouse_url"]) as connection:
            return connection.execute(
                "select event, actor, outcome, detail from audit where event in ('login', 'dagster-mutation')"
            ).fetchall()

    wait_for(
        "both are told", lambda: {"ok", "refused"} <= {row[2] for row in entries() if row[0] == "dagster-mutation"}, 20
    )
    mine = [row for row in entries() if row[1] == name]
    assert {row[0] for row in mine} == {"login", "dagster-mutation"}
    assert any(row[3].get("fields") == ["launchRun"] for row in mine)
    assert launched


def test_the_page_says_who_is_logged_in_and_may_not_be_framed(doors: Doors) -> None:
    page = doors.session("operator").ask("GET", "/")
    assert page.status_code == 200
    assert "&middot; operator" in page.text
    assert 'action="/logout"' in page.text
    assert page.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
