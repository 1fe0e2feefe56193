"""Every route of the gateway and of the Dagster UI: who may use it, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from pipeline_platform_tests.security.route_callers import FOLLOWING, OURS, SAFE, SOCKET, Caller, Route

# Whose key or session is good enough. A session has no scope `ingest` by itself: events are sent with keys.
ANYBODY: frozenset[str] = frozenset()
INGEST = frozenset({"ingest", "admin"})
ANY_KEY = frozenset({"ingest", "read", "operate", "admin"})
VIEWER = frozenset({"read", "operate", "admin"})
OPERATOR = frozenset({"operate", "admin"})
ADMIN = frozenset({"admin"})
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Row:
    """One route. `<name>` in `at`, `body` and `shows` stands for something that is there.

    may     whose key or session is let in
    status  what somebody who is let in hears; `shows` is in that answer
    at      what is asked for, where it is not the route's path
    lacks   what somebody hears who is known and may not
    gate    the door is the one of `access/gate.py`; otherwise it is the API's
    probe   answered under any name
    sessions  whether a session will do instead of a key
    """

    may: frozenset[str]
    status: int
    shows: str = ""
    at: str = ""
    body: Any = None
    lacks: int = 403
    gate: bool = False
    probe: bool = False
    sessions: bool = True

    def expects(self, method: str, caller: Caller) -> int:
        """The status that the caller has to hear."""
        status = self._by_gate(method, caller) if self.gate else self._by_api(method, caller)
        return 403 if method == SOCKET and status != self.status else status  # a handshake knows no other refusal

    def _by_api(self, method: str, caller: Caller) -> int:
        if (refused := self._by_host(caller)) or self.may == ANYBODY:
            return refused or self.status
        if not caller.scope or (caller.session and not self.sessions):
            return 401
        foreign = bool(caller.session) and method not in SAFE and caller.origin != OURS
        return self.lacks if foreign or caller.scope not in self.may else self.status

    def _by_gate(self, method: str, caller: Caller) -> int:
        if self.probe:  # also with two of them: it says nothing
            return self.status
        if refused := self._by_host(caller):
            return refused
        by_browser = not caller.key and (self.may == ANYBODY or caller.session)
        if by_browser and method not in SAFE and caller.origin != OURS:
            return 403
        if self.may == ANYBODY:
            return self.status
        if caller.scope not in VIEWER:
            return 401
        return self.status if caller.scope in self.may else self.lacks

    def _by_host(self, caller: Caller) -> int:
        if len(caller.hosts) > 1:
            return 400
        return 0 if self.probe or caller.hosts == (OURS,) else 421


Table = Mapping[Route, Row]
DRY = {"filter": {"states": ["open"]}, "dry_run": True}
NO_SIGN_ON = "Single sign-on is not set up here."


def declared(table: Table) -> set[Route]:
    """The routes that somebody has written; the others follow from them."""
    return {route for route in table if route[0] not in FOLLOWING}


def methods_of(table: Table, path: str) -> set[str]:
    """All that the path has."""
    return {method for method, each in table if each == path}


def _whole(table: Table) -> Table:
    """With HEAD for those and only those who may GET, and OPTIONS, which says nothing, for everybody."""
    heads = {("HEAD", path): replace(row, shows="") for (method, path), row in table.items() if method == "GET"}
    told = {path: replace(row, may=ANYBODY, status=204, shows="", body=None) for (_, path), row in table.items()}
    return {**table, **heads, **{("OPTIONS", path): row for path, row in told.items()}}


# The pages of a login, at both servers.
LOGIN: Table = _whole(
    {
        ("GET", "/login"): Row(ANYBODY, 200, "Pipeline Platform", gate=True),
        ("POST", "/login"): Row(ANYBODY, 303, body="name=&secret=<read token>", gate=True),
        ("POST", "/login/code"): Row(ANYBODY, 303, body="code=<code>", gate=True),
        ("GET", "/login/oidc"): Row(ANYBODY, 404, NO_SIGN_ON, gate=True),
        ("GET", "/login/oidc/callback"): Row(ANYBODY, 404, NO_SIGN_ON, gate=True),
        ("POST", "/logout"): Row(ANYBODY, 303, body="", gate=True),
        ("GET", "/whoami"): Row(VIEWER, 200, '"role"', gate=True),
    }
)

GATEWAY: Table = _whole(
    {
        **{route: LOGIN[route] for route in declared(LOGIN)},
        ("POST", "/v1/streams/{stream}/events"): Row(
            INGEST,
            202,
            '"receipt"',
            "/v1/streams/telemetry/events",
            {"source": "s", "metric": "m", "value": 1},
            sessions=False,
        ),
        ("GET", "/v1/receipts/{receipt}"): Row(ANY_KEY, 200, '"partial"', "/v1/receipts/<receipt>"),
        ("GET", "/v1/streams"): Row(ANY_KEY, 200, '"telemetry"'),
        ("GET", "/v1/streams/{stream}"): Row(VIEWER, 200, '"watermark"', "/v1/streams/telemetry"),
        ("POST", "/v1/streams/{stream}/resume"): Row(OPERATOR, 200, '"resumed"', "/v1/streams/telemetry/resume", {}),
        ("GET", "/v1/streams/{stream}/aggregates"): Row(VIEWER, 200, "<source>", "/v1/streams/telemetry/aggregates"),
        ("GET", "/v1/assets"): Row(VIEWER, 200, "<run>"),
        ("GET", "/v1/assets/{id}"): Row(VIEWER, 200, "<run>", "/v1/assets/<asset>"),
        ("POST", "/v1/assets/{id}/replay"): Row(OPERATOR, 409, "nothing-to-replay", "/v1/assets/<asset>/replay", {}),
        ("GET", "/v1/dead-letters"): Row(ADMIN, 200, "<payload>"),
        ("GET", "/v1/dead-letters/{id}"): Row(ADMIN, 200, "<payload>", "/v1/dead-letters/<letter>"),
        ("GET", "/v1/dead-letters/export"): Row(ADMIN, 200, "<payload>"),
        ("POST", "/v1/dead-letters/replay"): Row(OPERATOR, 200, '"matched":', body=DRY),
        ("POST", "/v1/dead-letters/discard"): Row(ADMIN, 200, '"matched":', body=DRY),
        ("GET", "/v1/replays"): Row(ADMIN, 200, "<note>"),
        ("GET", "/v1/replays/{id}"): Row(ADMIN, 200, "<note>", "/v1/replays/<replay>"),
        ("GET", "/v1/alerts"): Row(VIEWER, 200, '"data"'),
        ("GET", "/v1/audit"): Row(ADMIN, 200, "<actor>"),
        ("GET", "/v1/stats"): Row(VIEWER, 200, '"telemetry"'),
        ("GET", "/healthz"): Row(ANYBODY, 200, '{"status":"ok"}', probe=True),
        ("GET", "/readyz"): Row(ANYBODY, 200, '"ready":true'),
        ("GET", "/metrics"): Row(ANYBODY, 200, "# HELP"),
        ("GET", "/docs"): Row(ANYBODY, 200, "/openapi.json"),
        ("GET", "/docs/assets/{path}"): Row(ANYBODY, 200, "swagger", "/docs/assets/swagger-ui.css"),
        ("GET", "/openapi.json"): Row(ANYBODY, 200, '"paths"'),
    }
)


def _static(*paths: str) -> Table:
    return {("GET", path): Row(VIEWER, 200, gate=True) for path in paths}


_ICONS = ("/favicon.ico", "/favicon.png", "/favicon.svg")
_RUN_ICONS = ("/favicon-run-failed.svg", "/favicon-run-pending.svg", "/favicon-run-success.svg")
_REPORT = "/report_asset_{}/{{asset_key:path}}"

DAGSTER: Table = {
    **LOGIN,
    **_static(*_ICONS, *_RUN_ICONS, "/csp-header.txt", "/404.html", "/manifest.json", "/robots.txt"),
    **_static("/Dagster_world.mp4"),
    ("GET", "/index.html"): Row(VIEWER, 200, "<html", gate=True),
    ("GET", "/vendor/{path}"): Row(VIEWER, 200, at="/vendor/<vendor file>", gate=True),
    ("GET", "/_next/{path}"): Row(VIEWER, 200, at="/_next/<next file>", gate=True),
    ("GET", "/server_info"): Row(ANYBODY, 200, "{}", gate=True, probe=True),
    ("GET", "/dagit_info"): Row(VIEWER, 200, "{}", gate=True),
    ("GET", "/graphql"): Row(VIEWER, 405, "by POST", gate=True),
    ("POST", "/graphql"): Row(VIEWER, 200, "<version>", body={"query": "{ version }"}, gate=True),
    (SOCKET, "/graphql"): Row(VIEWER, 101, gate=True),
    ("GET", "/logs/{path:path}"): Row(OPERATOR, 404, "log manager", "/logs/x/y/stdout", gate=True),
    ("GET", "/notebook"): Row(OPERATOR, 200, "nbconvert", "/notebook?repoLocName=x&path=x", gate=True),
    ("GET", "/dagit/notebook"): Row(OPERATOR, 200, "nbconvert", "/dagit/notebook?repoLocName=x&path=x", gate=True),
    ("GET", "/download_debug/{run_id:str}"): Row(OPERATOR, 200, at="/download_debug/<run>", gate=True),
    ("POST", _REPORT.format("materialization")): Row(
        ADMIN, 200, "{}", "/report_asset_materialization/<asset>", {}, lacks=401, gate=True
    ),
    ("POST", _REPORT.format("check")): Row(
        ADMIN, 200, "{}", "/report_asset_check/<asset>", {"check_name": "x", "passed": True}, lacks=401, gate=True
    ),
    ("POST", _REPORT.format("observation")): Row(
        ADMIN, 200, "{}", "/report_asset_observation/<asset>", {}, lacks=401, gate=True
    ),
    ("GET", "/{path:path}"): Row(VIEWER, 200, "&middot; ", "/runs", gate=True),
    ("GET", "/"): Row(VIEWER, 200, "&middot; ", gate=True),
}
