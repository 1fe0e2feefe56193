"""Everybody who may knock at a web server, and what they send: one request on a connection of its own, byte by byte."""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import orjson
import redis
from starlette.routing import BaseRoute, Mount, WebSocketRoute
from starlette.routing import Route as HttpRoute

from pipeline_platform.queue.keys import KEYS, SCOPES, KeyStore, token_id
from pipeline_platform.queue.sessions import Session, SessionStore

OURS, EVIL, EVIL_HOST = "ours", "https://evil.example", "evil.example"
SOCKET = "WEBSOCKET"
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
FOLLOWING = frozenset({"HEAD", "OPTIONS"})  # methods that a path has because of its others
Route = tuple[str, str]  # method and path


@dataclass(frozen=True)
class Caller:
    """Who it is: with which key or session, from a page of which origin, to which host."""

    name: str
    key: str = ""
    session: str = ""
    origin: str = ""
    hosts: tuple[str, ...] = (OURS,)

    @property
    def scope(self) -> str:
        """What the caller's key is for; empty for nobody."""
        scope = self.key or self.session
        return scope if scope in SCOPES else ""


CALLERS = (
    Caller("anonymous"),
    Caller("anonymous, from our page", origin=OURS),
    *(Caller(f"{scope} key", key=scope) for scope in SCOPES),
    Caller("viewer session", session="read", origin=OURS),
    Caller("operator session", session="operate", origin=OURS),
    Caller("admin session", session="admin", origin=OURS),
    Caller("expired key", key="expired"),
    Caller("revoked key", key="revoked"),
    Caller("session that is over", session="over", origin=OURS),
    Caller("session of a revoked key", session="revoked", origin=OURS),
    Caller("foreign Origin with a session", session="admin", origin=EVIL),
    Caller("no Origin with a session", session="admin"),
    Caller("foreign Host with a session", session="admin", origin=OURS, hosts=(EVIL_HOST,)),
    Caller("foreign Host with a key", key="admin", hosts=(EVIL_HOST,)),
    Caller("foreign Host behind ours", session="admin", origin=OURS, hosts=(OURS, EVIL_HOST)),
    Caller("foreign Host before ours", key="admin", hosts=(EVIL_HOST, OURS)),
)
# Enough for what is the same to everybody: nobody, a key, other sites.
A_FEW = tuple(
    each for each in CALLERS if each.hosts != (OURS,) or each.origin == EVIL or each.name in ("anonymous", "read key")
)


@dataclass(frozen=True)
class Answer:
    """A whole answer; header names are in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace")

    def header(self, name: str) -> str:
        return ", ".join(value for each, value in self.headers if each == name)


def exchange(
    port: int, method: str, path: str, headers: Iterable[tuple[str, str]], body: bytes | None = None
) -> Answer:
    """One request with exactly these headers, in their order. An answer of 101 has no body: the socket is closed."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        found = tuple((name.lower(), value) for name, value in answer.getheaders())
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


@dataclass
class Keyring:
    """A key of every kind at one Redis; a session is begun for each request, since some requests end it."""

    client: redis.Redis
    tokens: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, client: redis.Redis) -> Keyring:
        store = KeyStore(client)
        made = {scope: store.create(f"table {scope}", [scope])[1] for scope in SCOPES}
        made["revoked"] = store.create("table revoked", ["admin"])[1]
        store.revoke(token_id(made["revoked"]) or "")
        made["expired"] = store.create("table expired", ["admin"])[1]
        which = token_id(made["expired"]) or ""
        record = orjson.loads(client.hget(KEYS, which) or b"")
        record["expires_at"] = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
        client.hset(KEYS, which, orjson.dumps(record))
        return cls(client, made)

    def cookie(self, session: str) -> str:
        sessions = SessionStore(self.client, absolute=3600, idle=3600)
        token = self.tokens["admin" if session == "over" else session]
        cookie = sessions.begin(Session("key", key_id=token_id(token) or ""))
        if session == "over":
            sessions.end(cookie)
        return cookie

    def code(self) -> str:
        """Of a link that logs a viewer in."""
        return SessionStore(self.client, absolute=0, idle=0).make_code(token_id(self.tokens["read"]) or "")

    def forget_tries(self) -> None:
        """Logins are bounded by the minute, which is not what the table is about."""
        for name in self.client.scan_iter("pp:login-tries:*"):
            self.client.delete(name)

    def headers(self, caller: Caller, port: int) -> list[tuple[str, str]]:
        """What the caller sends with every request."""
        ours = f"127.0.0.1:{port}"
        found = [("Host", ours if host == OURS else host) for host in caller.hosts]
        if caller.origin:
            found.append(("Origin", f"http://{ours}" if caller.origin == OURS else caller.origin))
        if caller.key:
            found.append(("Authorization", f"Bearer {self.tokens[caller.key]}"))
        if caller.session:
            found.append(("Cookie", f"pp_session={self.cookie(caller.session)}"))
        return found


def routes_of(routes: Iterable[BaseRoute]) -> set[Route]:
    """Method and path of every route, hidden ones too, but for FOLLOWING. Fails on a kind that it does not know."""
    found: set[Route] = set()
    for route in routes:
        if (inner := getattr(route, "original_router", None)) is not None:  # as FastAPI includes a router
            found |= routes_of(inner.routes)
        elif isinstance(route, Mount):
            found.add(("GET", f"{route.path}/{{path}}"))
        elif isinstance(route, WebSocketRoute):
            found.add((SOCKET, route.path))
        else:
            assert isinstance(route, HttpRoute), f"Which requests does {route!r} take?"
            found |= {(method, route.path) for method in (route.methods or {"every"}) - FOLLOWING}
    return found


def filled(text: str, known: Mapping[str, str]) -> str:
    """`text` with what there is in this server for `<name>`."""
    for name, value in known.items():
        text = text.replace(f"<{name}>", value)
    return text
