"""Logins at the gateway: their pages, and people who ask the API with a session instead of a key."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.requests import HTTPConnection
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from pipeline_platform.access.doorkeeper import Doorkeeper
from pipeline_platform.access.gate import Gate
from pipeline_platform.access.identity import Identity
from pipeline_platform.access.pages import OPEN_PATHS, LoginPages
from pipeline_platform.access.roles import scopes_of
from pipeline_platform.access.trusted_header import SECRET
from pipeline_platform.gateway.credentials import AccessProblemError
from pipeline_platform.gateway.observe import SAFE
from pipeline_platform.queue.keys import Key

_BY_SESSION = (b"cookie", SECRET.encode())
_BY_KEY = (b"authorization", b"x-api-key")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


class LoginRoute:
    """One path of the login pages, behind the gate that the Dagster UI is behind, too."""

    def __init__(self, path: str, gate: Gate) -> None:
        self.path = path
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def once(message: Message) -> None:  # Observe sets these for every answer of the gateway
            if message["type"] == "http.response.start":
                headers = [header for header in message["headers"] if header not in SAFE]
                message = {**message, "headers": headers}
            await send(message)

        await self._gate(scope, receive, once)


def login_routes(door: Doorkeeper) -> list[Route]:
    """The routes, to stand before the app's own."""
    pages = LoginPages(door).routes
    gate = Gate(Router(routes=pages), door, open_paths=OPEN_PATHS)
    return [Route(page.path, LoginRoute(page.path, gate), methods=sorted(page.methods or ())) for page in pages]


def by_session(headers: dict[bytes, bytes]) -> bool:
    """Whether a request comes without a key and with what may be a session."""
    return not any(name in headers for name in _BY_KEY) and any(name in headers for name in _BY_SESSION)


async def session_caller(door: Doorkeeper, conn: HTTPConnection) -> Key:
    """Who sends a request with a session, as the endpoints know callers: a key with the role's scopes.

    A 401 problem for nobody, a 403 for what another site has made the browser send.
    """
    identity = await door.identify(conn)
    if identity is None:
        detail = "The login is over, or was none: log in again, or send an API key."
        raise AccessProblemError("unauthorized", detail, reason="no session")
    caller = caller_of(identity)
    if not door.names.asked(conn):
        detail = "The gateway does not answer under that name with a login; PIPELINE_PUBLIC_URLS lists its names."
        raise AccessProblemError("forbidden", detail, reason="foreign host", key=caller)
    if conn.scope["method"] not in _SAFE_METHODS and not door.names.sent_by_our_pages(conn):
        detail = "With a login, changes are taken from the gateway's own pages; send an API key from elsewhere."
        raise AccessProblemError("forbidden", detail, reason="foreign origin", key=caller)
    return caller


def caller_of(identity: Identity) -> Key:
    """A key that nobody has the token of. Its id is the actor, which holds a space, as no real key's does."""
    return Key(identity.actor, identity.name, scopes_of(identity.role), b"", _ALWAYS)
