"""The gate: outermost, pure ASGI, for HTTP and WebSockets alike. Everything is closed that is not listed as open."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from urllib.parse import quote

from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline_platform.access.credentials import presented_token
from pipeline_platform.access.doorkeeper import Doorkeeper
from pipeline_platform.access.identity import Identity
from pipeline_platform.access.login_page import POLICY, away_page
from pipeline_platform.access.refusals import Refusal
from pipeline_platform.access.watched_socket import WatchedSocket
from pipeline_platform.core.media_types import prefers
from pipeline_platform.errors import QueueRefusedError, TransientError

Denial = tuple[int, str]
Rule = Callable[[HTTPConnection], Denial | None]

PROXY_HEADERS = frozenset({b"x-forwarded-user", b"x-forwarded-groups", b"x-forwarded-email", b"x-proxy-secret"})
RECHECK_SECONDS = 2.0
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
)
_NO_FRAMES = (b"content-security-policy", b"frame-ancestors 'none'")
_TLS_ONLY = (b"strict-transport-security", b"max-age=31536000")
_log = logging.getLogger(__name__)


class Gate:
    """Host, Origin, identity, then the app's own `rule`; the identity is left in `scope["identity"]`.

    `open_paths` are let through with their methods and without an identity, but never with a foreign Host or Origin.
    `probes` are GETs that a load balancer sends under any name; they have to say nothing. `rule` is asked about every
    other request, and may refuse it with a status and a sentence; what it needs is in the connection's scope.
    """

    def __init__(
        self,
        app: ASGIApp,
        doorkeeper: Doorkeeper,
        *,
        open_paths: Mapping[str, Collection[str]],
        probes: Collection[str] = (),
        rule: Rule | None = None,
        recheck_seconds: float = RECHECK_SECONDS,
    ) -> None:
        self._app = app
        self._doorkeeper = doorkeeper
        self._names = doorkeeper.names
        self._open = open_paths
        self._probes = frozenset(probes)
        self._rule = rule
        self._recheck = recheck_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and scope["path"] in self._probes:
            await self._app({**scope, "identity": None}, receive, _guarded(send, tls=False))
            return
        conn = HTTPConnection(scope)
        inner = {**scope, "identity": None, "headers": _without_proxy_headers(scope["headers"])}
        try:
            refusal = self._foreign_host(conn)
            if refusal is None:
                identity = inner["identity"] = await self._doorkeeper.identify(conn)
                refusal = self._refusal(HTTPConnection(inner), identity)
        except (TransientError, QueueRefusedError) as error:
            _log.warning("nobody can be identified: %s", error)
            refusal = 503, "Logins cannot be checked for now; try again in a few seconds."
        if scope["type"] == "http":
            await self._answer(inner, receive, _guarded(send, tls=self._names.secure(conn)), refusal)
        elif refusal:  # before it is accepted: the handshake is answered with a 403
            await send({"type": "websocket.close", "code": 4000 + refusal[0], "reason": refusal[1]})
        else:
            socket = WatchedSocket(self._app, lambda: self._still(conn, inner["identity"]), self._recheck)
            await socket(inner, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send, refusal: Denial | None) -> None:
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await _refused(HTTPConnection(scope), *refusal)(scope, receive, send)

    def _foreign_host(self, conn: HTTPConnection) -> Denial | None:
        if len(conn.headers.getlist("host")) != 1:
            return 400, "Send one Host header."
        if not self._names.asked(conn):
            return 421, "This server does not answer under that name; PIPELINE_PUBLIC_URLS lists its names."
        return None

    def _refusal(self, conn: HTTPConnection, identity: Identity | None) -> Denial | None:
        token = presented_token(conn)
        is_open = conn.scope.get("method") in self._open.get(conn.scope["path"], ())
        changes = conn.scope["type"] == "websocket" or conn.scope["method"] not in _SAFE_METHODS
        by_browser = not token and (is_open or identity or self._doorkeeper.cookie_of(conn))
        if changes and by_browser and not self._names.sent_by_our_pages(conn):
            self._note("forbidden", conn, identity, "foreign origin")
            return 403, "Requests from other sites are refused."
        if is_open:
            return None
        if identity is None:
            if token:
                self._note("unauthorized", conn, None, "unknown token")
            return 401, "Log in first, or send an API key."
        refusal = self._rule(conn) if self._rule else None
        if refusal and refusal[0] == 403:
            self._note("forbidden", conn, identity, refusal[1])
        return refusal

    async def _still(self, conn: HTTPConnection, identity: Identity) -> bool:
        try:
            return await self._doorkeeper.identify(conn, touch=False) == identity
        except (TransientError, QueueRefusedError):
            return False

    def _note(self, event: str, conn: HTTPConnection, identity: Identity | None, why: str) -> None:
        who, role = (identity.actor, identity.role.value) if identity else ("", "")
        address, path = self._doorkeeper.address_of(conn), str(conn.scope["path"])[:200]
        self._doorkeeper.audit.refused(Refusal(event, address, why, actor=who, role=role, path=path))


def _refused(conn: HTTPConnection, status: int, why: str) -> Response:
    accept = ", ".join(conn.headers.getlist("accept"))
    wants_page = conn.scope["method"] in ("GET", "HEAD") and prefers(accept, "text/html", "application/json")
    headers = {"Cache-Control": "no-store"}
    if status == 401 and wants_page:
        wanted = conn.scope["path"] + (f"?{query}" if (query := conn.scope["query_string"].decode("latin-1")) else "")
        target = "/login" if wanted == "/" else f"/login?next={quote(wanted, safe='/')}"
        return RedirectResponse(target, 303, headers)
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="pipeline-platform"'
    if status == 503:
        headers["Retry-After"] = "2"
        if wants_page:
            return HTMLResponse(away_page(why), status, {**headers, "Content-Security-Policy": POLICY})
    return JSONResponse({"error": why}, status, headers)


def _without_proxy_headers(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [header for header in headers if header[0].lower() not in PROXY_HEADERS]


def _guarded(send: Send, *, tls: bool) -> Send:

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", ()))
            present = {name.lower() for name, _ in headers}
            headers += [header for header in _SAFE_HEADERS if header[0] not in present]
            headers.append(_NO_FRAMES)  # beside a policy of the app's: browsers keep to both
            if tls:
                headers.append(_TLS_ONLY)
            message = {**message, "headers": headers}
        await send(message)

    return guarded
