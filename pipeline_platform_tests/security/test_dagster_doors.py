"""The Dagster UI is closed to strangers and to other sites, whatever they write; see also test_every_route.py."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as open_socket
from websockets.typing import Origin, Subprotocol

from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.oracle import wait_for
from pipeline_platform_tests.security.dagster_ui import LAUNCH, SELECTOR, Doors, Person

VERSION = "{ version }"


@pytest.fixture(scope="module")
def doors(up: Up) -> Doors:
    return Doors.of(up)


@pytest.mark.parametrize(
    "path",
    [
        "//graphql",
        "/%67raphql",
        "/login/../graphql",
        "/graphql/",
        "/login/",
        "/anything/that/a/newer/version/adds",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS"])
def test_a_stranger_gets_in_nowhere(doors: Doors, method: str, path: str) -> None:
    answer = doors.anonymous().ask(method, path, headers={"Accept": "application/json"})
    assert answer.status_code == 401
    assert "version" not in answer.text


def test_a_stranger_with_a_browser_is_sent_to_the_login(doors: Doors) -> None:
    answer = doors.anonymous().ask("GET", "/runs?q=1", headers={"Accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/runs%3Fq%3D1")


def test_a_key_for_sending_events_is_no_login(doors: Doors) -> None:
    assert doors.log_in(doors.keys["ingest"]).status_code == 401


def test_a_login_by_the_page_opens_the_door(doors: Doors) -> None:
    answer = doors.log_in(doors.keys["viewer"])
    assert answer.status_code == 303
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(answer.headers["set-cookie"].split("; "))
    person = Person(doors.base, cookies={"pp_session": answer.cookies["pp_session"]})
    assert person.ask("GET", "/whoami").json()["role"] == "viewer"


def test_the_link_of_up_opens_the_door_once(up: Up, doors: Doors) -> None:
    line = next(line for line in up.log.splitlines() if "/login#code=" in line)
    code = line.rpartition("#code=")[2].strip()
    for expected in (303, 401):
        answer = requests.post(
            f"{doors.base}/login/code",
            data={"code": code},
            headers={"Origin": doors.base},
            allow_redirects=False,
            timeout=30,
        )
        assert answer.status_code == expected


@pytest.mark.parametrize("origin", ["null", "http://127.0.0.1:1", "both"])
@pytest.mark.parametrize("role", ["viewer", "admin"])
def test_another_site_cannot_use_somebodys_session(doors: Doors, role: str, origin: str) -> None:
    person = doors.session(role)
    headers = {"Origin": origin if origin != "both" else f"{doors.base}, https://evil.example"}
    assert person.ask("POST", "/graphql", json={"query": VERSION}, headers=headers).status_code == 403
    report = person.ask("POST", "/report_asset_materialization/x?description=forged", headers=headers)
    assert report.status_code == 403
    assert person.ask("POST", "/logout", headers=headers).status_code == 403
    assert person.post(VERSION).status_code == 200  # still logged in


def test_graphql_comes_by_post_of_json_only(doors: Doors) -> None:
    """F2's requests, which a page can send without asking."""
    admin = doors.session("admin")
    origin = {"Origin": doors.base}
    mutation = "mutation{setNuxSeen}"
    assert admin.ask("GET", f"/graphql?query={mutation}").status_code == 405
    assert admin.ask("GET", f"/graphql?query={mutation}", headers={"Accept": "text/html"}).status_code == 405
    assert admin.ask("HEAD", "/graphql?query={version}").status_code == 405
    for kind in (
        "text/plain; application/json",
        "application/graphql",
        "text/plain",
        "multipart/form-data; x=application/json",
    ):
        answer = admin.ask(
            "POST", "/graphql", data=json.dumps({"query": mutation}), headers={**origin, "Content-Type": kind}
        )
        assert answer.status_code == 415, kind
    for kind in ("application/json; charset=utf-16", "application/json; charset", "application/vnd.example+json"):
        assert admin.ask("POST", "/graphql", data="{}", headers={**origin, "Content-Type": kind}).status_code == 415
    for kind in ("application/json;charset=utf-8;", 'Application/JSON; charset="UTF-8"', "application/json ; x=1"):
        answer = admin.ask(
            "POST", "/graphql", data=json.dumps({"query": "{ version }"}), headers={**origin, "Content-Type": kind}
        )
        assert answer.status_code == 200, kind
    in_url = admin.ask("POST", f"/graphql?query={mutation}", headers=origin)
    assert in_url.status_code == 415
    for method in ("GET", "HEAD"):
        page = admin.ask(method, "/graphql", headers={"Accept": "TEXT/HTML;q=0.9, */*;q=0.1"})
        assert page.status_code == 200  # GraphiQL


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8;", 200),
        ('Application/JSON;charset="UTF-8"', 200),
        ("application/json ; version=1", 200),
        ("application/json; charset=utf-16", 400),
        ("text/plain; application/json", 400),
    ],
)
def test_events_of_assets_are_reported_as_json_however_it_is_written(doors: Doors, kind: str, status: int) -> None:
    """Dagster itself knows one spelling of it."""
    body = json.dumps({"description": "said by a test"})
    path = "/report_asset_materialization/by_media_type/x"
    assert doors.key("admin").ask("POST", path, data=body, headers={"Content-Type": kind}).status_code == status


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:1", "127.0.0.1.evil.example:{port}", ""])
@pytest.mark.parametrize("who", ["anonymous", "session", "key"])
def test_a_foreign_host_is_refused(doors: Doors, up: Up, host: str, who: str) -> None:
    """DNS rebinding: a page of another name reaches loopback, and could read the answers."""
    person = doors.anonymous() if who == "anonymous" else getattr(doors, who)("admin")
    headers = {"Host": host.format(port=up.dagster_port)}
    for method, path in (("GET", "/"), ("GET", "/login"), ("POST", "/graphql")):
        answer = person.ask(method, path, headers=headers, json={"query": VERSION} if method == "POST" else None)
        assert answer.status_code in (400, 421)


RUN_LOGS = 'subscription { pipelineRunLogs(runId: "%s") { __typename } }'


def _socket(doors: Doors, cookie: str) -> Any:
    headers = {"Cookie": f"pp_session={cookie}"}
    url = doors.base.replace("http", "ws") + "/graphql"
    return open_socket(
        url,
        origin=Origin(doors.base),
        additional_headers=headers,
        subprotocols=[Subprotocol("graphql-ws")],
        open_timeout=20,
    )


def test_a_viewer_watches_a_run_and_changes_nothing_over_a_socket(up: Up, doors: Doors) -> None:
    run = up.graphql("{ runsOrError(limit: 1) { ... on Runs { results { runId } } } }")["runsOrError"]["results"][0]
    with _socket(doors, doors.cookie(doors.keys["viewer"])) as client:
        client.send(json.dumps({"type": "start", "id": "1", "payload": {"query": RUN_LOGS % run["runId"]}}))
        assert json.loads(client.recv(20))["type"] == "data"
        mutation = {"query": LAUNCH, "variables": {"params": {"selector": SELECTOR}}}
        client.send(json.dumps({"type": "start", "id": "2", "payload": mutation}))
        while (answer := json.loads(client.recv(20)))["id"] != "2":
            pass
        assert answer["type"] == "error"
        deep = "subscription { " + "a { " * 20 + "b" + " }" * 21
        client.send(json.dumps({"type": "start", "id": "3", "payload": {"query": deep}}))
        while (answer := json.loads(client.recv(20)))["id"] != "3":
            pass
        assert "fields deep" in answer["payload"]["message"]


def test_a_socket_ends_with_its_session(doors: Doors) -> None:
    cookie = doors.cookie(doors.keys["viewer"])
    with _socket(doors, cookie) as client:
        gone = Person(doors.base, cookies={"pp_session": cookie}).ask("POST", "/logout", headers={"Origin": doors.base})
        assert gone.status_code == 303
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(30)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4401


def test_a_revoked_key_is_out_everywhere(up: Up, doors: Doors) -> None:
    where = json.loads((up.state_dir / "connections.json").read_text())
    store = KeyStore(connect(where["redis_url"]))
    key, token = store.create("to be revoked", ["admin"])
    by_key = Person(doors.base, {"Authorization": f"Bearer {token}"})
    by_session = Person(doors.base, cookies={"pp_session": doors.cookie(token)})
    assert (by_key.post(VERSION).status_code, by_session.post(VERSION).status_code) == (200, 200)
    store.revoke(key.id)
    wait_for(
        "both are out", lambda: {by_key.post(VERSION).status_code, by_session.post(VERSION).status_code} == {401}, 10
    )
