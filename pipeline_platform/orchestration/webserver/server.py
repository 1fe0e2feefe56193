"""Dagster's web server with our gate in front of every route, bounds on GraphQL, and an audit of what is changed."""

from __future__ import annotations

import html
import json
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar

import orjson
from dagster_webserver.webserver import DagsterWebserver
from graphql import GraphQLError
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute
from starlette.websockets import WebSocket

from pipeline_platform.access.body_limit import BodyLimit
from pipeline_platform.access.doorkeeper import Doorkeeper
from pipeline_platform.access.gate import Gate
from pipeline_platform.access.identity import Identity
from pipeline_platform.access.pages import OPEN_PATHS, LoginPages
from pipeline_platform.access.roles import Role
from pipeline_platform.core.media_types import content_codings, prefers, utf8_type
from pipeline_platform.orchestration.runtime.who import LAUNCHED_BY
from pipeline_platform.orchestration.webserver.graphql_bounds import BoundError, examine
from pipeline_platform.orchestration.webserver.mutations import outcome_of, said_of
from pipeline_platform.orchestration.webserver.permissions import RoleContext, RoleProcess

PROBE = "/server_info"  # `up` and load balancers ask it; it says nothing
BODY_BYTES = 2**20  # run config is in it
SUBSCRIPTIONS = 100  # of one WebSocket
# Debug files and logs hold what runs print. The rest of Dagster's routes ask for permissions themselves.
OPERATORS_PATHS = ("/download_debug/", "/logs/", "/notebook", "/dagit/notebook")
_BADGE = """<div style="position:fixed;right:12px;bottom:8px;z-index:30;font:12px/1.4 system-ui,sans-serif;opacity:.9;
color:#fff;background:#2d3142;border-radius:14px;padding:3px 6px 3px 12px;display:flex;gap:8px;align-items:center">
<span>{name} &middot; {role}</span><form method="post" action="/logout" style="margin:0"><button type="submit"
style="all:unset;cursor:pointer;background:#fff;color:#2d3142;border-radius:10px;padding:0 8px">Log out</button></form>
</div></body>"""


class SecuredWebserver(DagsterWebserver[RoleProcess, RoleContext]):
    """One web server. Everything but the login and the probe is closed to whoever is not logged in."""

    probes: ClassVar = frozenset({PROBE})

    def __init__(self, process: RoleProcess, doorkeeper: Doorkeeper, *, badge: bool = True) -> None:
        self._door = doorkeeper
        self._pages = LoginPages(doorkeeper)
        self._badge = badge
        super().__init__(process, live_data_poll_rate=2_000)

    def build_middleware(self) -> list[Middleware]:
        """The gate is outermost: a route that a new version of Dagster adds is behind it, too."""
        gate = Middleware(Gate, doorkeeper=self._door, open_paths=OPEN_PATHS, probes=self.probes, rule=operators_only)
        return [gate, Middleware(BodyLimit, limit=BODY_BYTES), *super().build_middleware()]

    def build_routes(self) -> list[BaseRoute]:
        """Ours before Dagster's, whose last one takes every path."""
        return [*self._pages.routes, *super().build_routes()]  # type: ignore[no-untyped-call]

    async def webserver_info_endpoint(self, _request: Request) -> JSONResponse:
        """For probes: alive. Versions are for those who are logged in; the UI has them from GraphQL."""
        return JSONResponse({})

    def index_html_endpoint(self, request: Request) -> Response:
        """Dagster's page, with who is logged in and a button to log out."""
        page: Response = super().index_html_endpoint(request)
        identity = request.scope.get("identity")
        if not self._badge or not isinstance(identity, Identity):
            return page
        badge = _BADGE.format(name=html.escape(identity.name), role=identity.role.value)
        body = bytes(page.body).decode().replace("</body>", badge)
        kept = {name: value for name, value in page.headers.items() if name != "content-length"}
        return HTMLResponse(body, headers=kept)

    async def download_debug_file_endpoint(self, request: Request) -> Response:
        """As Dagster's, but a run that is not there is a 404."""
        try:
            run_id = str(uuid.UUID(request.path_params["run_id"]))
        except ValueError:
            return PlainTextResponse("There is no such run.", 404)
        with self.request_context(request) as context:
            if context.instance.get_run_by_id(run_id) is None:
                return PlainTextResponse("There is no such run.", 404)
        found: Response = await super().download_debug_file_endpoint(request)
        return found

    async def graphql_http_endpoint(self, request: Request) -> Response:
        """GraphQL by POST of JSON; a browser's GET is the page to write queries with.

        Dagster itself takes queries in URLs and bodies of other types, which other sites can send without asking.
        """
        if request.method in ("GET", "HEAD"):
            accept = ", ".join(request.headers.getlist("accept"))
            if "query" in request.query_params or not prefers(accept, "text/html", "application/json"):
                return PlainTextResponse("Send GraphQL by POST.", 405, {"Allow": "POST"})
            plainly = {**request.scope, "method": "GET", "headers": [(b"accept", b"text/html")]}
            page: Response = await super().graphql_http_endpoint(Request(plainly, request.receive))
            return page
        if not _is_json(request):
            return PlainTextResponse("Send application/json, in UTF-8 and not compressed.", 415)
        try:
            asked = orjson.loads(await request.body())
            query, variables, name = _parts(asked)
            examine(query)
        except (ValueError, BoundError) as error:  # JSON that cannot be read is a ValueError
            return _refused(str(error))
        except GraphQLError as error:
            return _refused(error.message)
        return await self.execute_graphql_request(request, query, variables, name)

    async def gen_graphql_response(
        self,
        request_context: RoleContext,
        query: str,
        variables: dict[str, Any] | None,
        operation_name: str | None,
    ) -> JSONResponse:
        """Executes it as the one who asks; a mutation leaves a line in the audit."""
        identity = request_context.identity
        LAUNCHED_BY.set(identity.name)
        answer: JSONResponse = await super().gen_graphql_response(request_context, query, variables, operation_name)
        if fields := examine(query).mutations:
            self._record(request_context, {"fields": list(fields), "variables": said_of(variables)}, bytes(answer.body))
        return answer

    def _determine_status_code(
        self, resolver_errors: list[GraphQLError] | None, captured_errors: list[Exception]
    ) -> int:
        """As Dagster's, but variables that do not fit the query are the sender's mistake: 400, not 500."""
        if resolver_errors and not captured_errors:
            by_resolvers = [each for each in resolver_errors if not isinstance(each.original_error, GraphQLError)]
            if not by_resolvers:
                return 400
        return super()._determine_status_code(resolver_errors, captured_errors)

    async def execute_graphql_subscription(
        self,
        websocket: WebSocket,
        operation_id: str,
        query: str,
        variables: dict[str, Any] | None,
        operation_name: str | None,
    ) -> Any:
        """The same bounds for what comes over a WebSocket, and on how much of it one socket may ask for."""
        websocket.state.subscriptions = getattr(websocket.state, "subscriptions", 0) + 1
        if websocket.state.subscriptions > SUBSCRIPTIONS:
            return None, {"message": f"A socket has at most {SUBSCRIPTIONS} subscriptions."}
        try:
            examine(query)
        except (BoundError, GraphQLError) as error:
            return None, {"message": str(error)}
        return await super().execute_graphql_subscription(websocket, operation_id, query, variables, operation_name)

    async def report_asset_materialization_endpoint(self, request: Request) -> JSONResponse:
        return await self._reported(request, await super().report_asset_materialization_endpoint(_plain(request)))

    async def report_asset_check_endpoint(self, request: Request) -> JSONResponse:
        return await self._reported(request, await super().report_asset_check_endpoint(_plain(request)))

    async def report_asset_observation_endpoint(self, request: Request) -> JSONResponse:
        return await self._reported(request, await super().report_asset_observation_endpoint(_plain(request)))

    async def _reported(self, request: Request, answer: JSONResponse) -> JSONResponse:
        with self.request_context(request) as context:
            outcome = {200: "ok", 401: "refused"}.get(answer.status_code, "failed")
            self._record(context, {"fields": [request.scope["path"][:200]]}, b"", outcome)
        return answer

    def _record(self, context: RoleContext, detail: Mapping[str, object], answer: bytes, outcome: str = "") -> None:
        connection, who = context.source, context.identity
        self._door.audit.record(
            "dagster-mutation",
            actor=who.actor,
            role=who.role,
            outcome=outcome or outcome_of(answer),
            address=self._door.address_of(connection) if isinstance(connection, HTTPConnection) else "",
            detail=detail,
        )


def operators_only(conn: HTTPConnection) -> tuple[int, str] | None:
    """The gate's rule for this server: what runs print is not for viewers."""
    identity = conn.scope["identity"]
    if conn.scope["path"].startswith(OPERATORS_PATHS) and not identity.role.may(Role.OPERATOR):
        return 403, "Debug files, logs and notebooks are for operators and admins."
    return None


def _is_json(request: Request) -> bool:
    headers = request.headers
    encoded = content_codings(headers.get("content-encoding", ""))
    return utf8_type(headers.get("content-type", "")) == "application/json" and not encoded


def _plain(request: Request) -> Request:
    """JSON under the one name for it that Dagster's own endpoints know."""
    if not _is_json(request):
        return request
    others = [header for header in request.scope["headers"] if header[0] != b"content-type"]
    plainly = {**request.scope, "headers": [*others, (b"content-type", b"application/json")]}
    return Request(plainly, request.receive)


def _parts(asked: Any) -> tuple[str, dict[str, Any] | None, str | None]:
    """Query, variables and the operation's name. ValueError says what is wrong with them."""
    if not isinstance(asked, dict) or not isinstance(query := asked.get("query"), str):
        raise ValueError("Send an object with the text `query`.")
    variables, name = asked.get("variables"), asked.get("operationName")
    if isinstance(variables, str):
        variables = json.loads(variables)
    if not isinstance(variables, dict | None):
        raise ValueError("`variables` is an object.")
    if not isinstance(name, str | None):
        raise ValueError("`operationName` is a text.")
    return query, variables, name


def _refused(message: str) -> JSONResponse:
    return JSONResponse({"data": None, "errors": [{"message": message}]}, 400)
