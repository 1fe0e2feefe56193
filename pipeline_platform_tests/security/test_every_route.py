"""Every route of both web servers, asked by everybody: who is let in, what they hear, and what nobody else hears.

`route_table.py` is the table. A route that is added to either server needs a row there.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import APIRouter

from pipeline_platform.access.pages import LoginPages
from pipeline_platform.core.streams import load_specs
from pipeline_platform.gateway.app import build_app
from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform.orchestration.webserver.server import SecuredWebserver
from pipeline_platform.settings import Settings
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.security.route_callers import (
    CALLERS,
    EVIL,
    SAFE,
    SOCKET,
    Answer,
    Caller,
    Route,
    routes_of,
)
from pipeline_platform_tests.security.route_servers import CORS, Server, gateway_with_all, ui_of
from pipeline_platform_tests.security.route_table import DAGSTER, GATEWAY, LOGIN, Row, declared, methods_of


def names(route: Route) -> str:
    """The id of a route's test."""
    return " ".join(route)


@pytest.fixture(scope="module")
def gateway(postgres_server: PostgresServer, valkey_server: ValkeyServer, template_database: str) -> Iterator[Server]:
    """A gateway with something of every kind in it."""
    with gateway_with_all(postgres_server, template_database, valkey_server.url(0)) as server:
        yield server


@pytest.fixture(scope="module")
def ui(up: Up) -> Iterator[Server]:
    """The Dagster UI of the running platform."""
    with ui_of(up) as server:
        yield server


def _dagsters_routes() -> set[Route]:
    server = SecuredWebserver.__new__(SecuredWebserver)
    server._app_path_prefix, server._pages = "", LoginPages.__new__(LoginPages)
    return routes_of(server.build_routes())


def test_every_route_of_the_gateway_has_a_row() -> None:
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/none", redis_url="redis://127.0.0.1:1/0")
    app = build_app(settings, load_specs())
    assert routes_of(app.routes) == declared(GATEWAY)
    more = APIRouter()
    more.add_api_route("/hidden", lambda: None, include_in_schema=False)
    app.include_router(more)
    assert routes_of(app.routes) - declared(GATEWAY) == {("GET", "/hidden")}


def test_every_route_of_the_dagster_ui_has_a_row() -> None:
    assert _dagsters_routes() == declared(DAGSTER)


@pytest.mark.parametrize("route", sorted(GATEWAY), ids=names)
def test_a_route_of_the_gateway_is_for_those_of_its_row(gateway: Server, route: Route) -> None:
    complaints = gateway.complaints(route, GATEWAY[route])
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("route", sorted(DAGSTER), ids=names)
def test_a_route_of_the_dagster_ui_is_for_those_of_its_row(ui: Server, route: Route) -> None:
    complaints = ui.complaints(route, DAGSTER[route])
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "HEAD", "GET", "POST"])
@pytest.mark.parametrize("where", ["gateway", "ui"])
def test_a_method_without_a_row_does_nothing(request: pytest.FixtureRequest, where: str, method: str) -> None:
    """Nobody, and not an admin either; HEAD tells no more than GET."""
    server: Server = request.getfixturevalue(where)
    table = GATEWAY if where == "gateway" else DAGSTER
    strangers, admin = CALLERS[:2], next(each for each in CALLERS if each.name == "admin session")
    refused = {401} if where == "ui" else {401, 404, 405}
    # An admin's HEAD is as the GET; the Dagster UI has a page for every path, the gateway a letter for every word.
    answered = {401, 404, 405, 422} | ({200} if where == "ui" and method in SAFE else set())
    wrong = []
    for path, row in {path: row for (each, path), row in table.items() if each != SOCKET}.items():
        get = table.get(("GET", path))
        if (method, path) in table or (method == "HEAD" and get and not get.may):
            continue
        for caller in (*strangers, admin):
            answer = server.ask((method, path), Row(row.may, 0, at=row.at), caller)
            good = answered | ({get.status} if get and method == "HEAD" else set()) if caller == admin else refused
            leaks = server.leaks(answer, row.at or path) if answer.status not in (200, 422) else []
            if answer.status not in good or leaks:
                wrong.append(f"{caller.name} at {path}: {answer.status} {leaks} {answer.text[:300]}")
    assert not wrong, "\n".join(wrong)


def _by(name: str) -> Caller:
    return next(each for each in CALLERS if each.name == name)


PATHS = sorted({("gateway", path) for _, path in GATEWAY} | {("ui", path) for _, path in LOGIN})


@pytest.mark.parametrize(("where", "path"), PATHS)
def test_a_path_tells_its_methods_and_head_is_its_get(request: pytest.FixtureRequest, where: str, path: str) -> None:
    """Also to other sites, whose browsers are not told that they may ask."""
    server: Server = request.getfixturevalue(where)
    table = GATEWAY if where == "gateway" else DAGSTER
    methods = methods_of(table, path)
    told = server.ask(("OPTIONS", path), table["OPTIONS", path], Caller("another site", origin=EVIL))
    assert (told.status, told.body, set(told.header("allow").split(", "))) == (204, b"", methods)
    assert not [name for name, _ in told.headers if name.startswith(CORS)]
    for method in {"GET", "HEAD", "POST", "PUT"} - methods:
        refused = server.ask((method, path), table["OPTIONS", path], _by("admin key"))
        assert (refused.status, set(refused.header("allow").split(", "))) == (405, methods), method
    if "HEAD" in methods:
        for caller in (_by("ingest key"), _by("admin key")):
            get, head = (server.ask((method, path), table["GET", path], caller) for method in ("GET", "HEAD"))
            assert (head.status, head.body) == (get.status, b""), caller
            assert _steady(head) == _steady(get) - {("transfer-encoding", "chunked")}, caller


def _steady(answer: Answer) -> set[tuple[str, str]]:
    """What two answers to the same question have in common; of what changes from one to the next, that it is there."""
    names = ("date", "ratelimit-remaining", "ratelimit-reset", "set-cookie", "content-length")
    return {(name, "" if name in names else value) for name, value in answer.headers}


def test_only_an_admin_has_reported_an_event_of_an_asset(ui: Server, up: Up) -> None:
    """The Dagster UI's changes are looked for where they would be: each caller reports of an asset of its own."""
    route = ("POST", "/report_asset_materialization/{asset_key:path}")
    let_in = set()
    for number, caller in enumerate(CALLERS):
        row = DAGSTER[route]
        ui.ask(route, row, caller, asset=f"by_caller/{number}")
        if row.expects("POST", caller) == row.status:
            let_in.add(str(number))
    query = '{ assetsOrError(prefix: ["by_caller"]) { ... on AssetConnection { nodes { key { path } } } } }'
    there = {each["key"]["path"][1] for each in up.graphql(query)["assetsOrError"]["nodes"]}
    assert let_in
    assert there == let_in
