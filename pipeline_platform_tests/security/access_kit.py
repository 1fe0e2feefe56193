"""A small app behind the gate, served on a real port, and what asks it.

A test module takes the fixtures that it wants by assignment (`base = access_kit.base`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import pytest
import redis
import requests
import uvicorn
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from pipeline_platform.access.audit import NullAuditor
from pipeline_platform.access.config import AccessConfig
from pipeline_platform.access.doorkeeper import Doorkeeper, Users
from pipeline_platform.access.gate import Gate
from pipeline_platform.access.names import OurNames
from pipeline_platform.access.pages import OPEN_PATHS, LoginPages
from pipeline_platform.access.refusals import Refusal
from pipeline_platform.local.ports import free_port
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.sessions import SessionStore
from pipeline_platform_tests.integration.test_gateway.kit import until


@dataclass
class Journal(NullAuditor):
    """Keeps what was recorded: `event, actor, outcome, address`."""

    lines: list[tuple[str, str, str, str]] = field(default_factory=list)

    def record(
        self,
        event: str,
        *,
        actor: str,
        outcome: str = "ok",
        address: str = "",
        detail: Mapping[str, object] | None = None,
        role: str = "",
    ) -> None:
        """As Auditor.record."""
        self.lines.append((event, actor, outcome, address))

    def refused(self, refusal: Refusal) -> None:
        """As Auditor.refused, but each of them."""
        self.lines.append((refusal.event, refusal.actor, "refused", refusal.address))


def make_doorkeeper(
    redis_url: str,
    names: OurNames,
    *,
    journal: Journal | None = None,
    absolute: float = 3600.0,
    idle: float = 3600.0,
    users: Users | None = None,
    timeout: float = 3.0,
    clock: Callable[[], float] = time.monotonic,
) -> Doorkeeper:
    """A doorkeeper over real Redis with limits of the test's own."""
    client = connect(redis_url, timeout=timeout)
    audit = journal or Journal()
    sessions = SessionStore(client, absolute=absolute, idle=idle)
    return Doorkeeper(sessions, KeyStore(client), names, audit=audit, users=users, idle=idle, clock=clock)


def operators_only(conn: HTTPConnection) -> tuple[int, str] | None:
    """A rule of an app's own."""
    if conn.url.path == "/operators" and conn.scope["identity"].role == "viewer":
        return 403, "This is for operators."
    return None


async def tell(request: Request) -> Response:
    """Who the app thinks is asking, and which headers it was given."""
    identity = request.scope["identity"]
    told = {"name": identity.name, "role": identity.role, "headers": dict(request.headers)} if identity else {}
    return JSONResponse(told)


async def echo(socket: WebSocket) -> None:
    """Says who is connected, then repeats what comes."""
    await socket.accept()
    await socket.send_text(socket.scope["identity"].name)
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await socket.send_text(await socket.receive_text())


def small_app(doorkeeper: Doorkeeper, *, recheck: float = 0.2) -> ASGIApp:
    """The login pages and a few routes behind the gate; /open needs no login."""
    routes = [
        *LoginPages(doorkeeper).routes,
        *(Route(path, tell, methods=["GET", "POST"]) for path in ("/", "/open", "/operators")),
        WebSocketRoute("/socket", echo),
    ]
    return Gate(
        Starlette(routes=routes),
        doorkeeper,
        open_paths={**OPEN_PATHS, "/open": {"GET", "HEAD", "POST"}},
        rule=operators_only,
        recheck_seconds=recheck,
    )


@contextlib.contextmanager
def served(app: ASGIApp, port: int) -> Iterator[str]:
    """The base URL of an app under uvicorn in a thread."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        ws="websockets-sansio",
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive(), 10)
    assert server.started
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


class Visitor:
    """A browser without a screen: keeps cookies, sends the Origin, follows no redirect."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.http = requests.Session()
        self.http.trust_env = False

    def get(self, path: str, **headers: str) -> requests.Response:
        """GET as a script does, unless `accept` says otherwise."""
        return self.http.get(self.base + path, headers=headers, timeout=20, allow_redirects=False)

    def post(self, path: str, data: object = None, *, origin: str | None = "same", **headers: str) -> requests.Response:
        """POST a form from a page of `origin`: the server's own, another one, or none at all."""
        if origin is not None:
            headers["Origin"] = self.base if origin == "same" else origin
        form = data if isinstance(data, bytes | str) else dict(data or {})  # type: ignore[call-overload]
        if not isinstance(form, dict):
            headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        return self.http.post(self.base + path, data=form, headers=headers, timeout=20, allow_redirects=False)

    def login(self, secret: str, name: str = "", *, following: str = "/") -> requests.Response:
        """Sends the login form."""
        return self.post("/login", {"name": name, "secret": secret, "next": following})

    @property
    def cookie(self) -> str:
        """The session's cookie; empty without one."""
        return self.http.cookies.get("pp_session") or ""


def key(client: redis.Redis, *scopes: str) -> tuple[str, str]:
    """A new API key's id and token."""
    made, token = KeyStore(client).create("test", scopes)
    return made.id, token


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """The test's Redis."""
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def journal() -> Journal:
    """What the doorkeeper recorded."""
    return Journal()


@pytest.fixture
def base(redis_url: str, journal: Journal) -> Iterator[str]:
    """The app behind its gate; people may also reach it as pipelines.test and, by TLS, as secure.test."""
    config = AccessConfig(redis_url, free_port(), ("http://pipelines.test", "https://secure.test"))
    doorkeeper = make_doorkeeper(redis_url, config.names, journal=journal)
    with served(small_app(doorkeeper), config.port) as url:
        yield url
    doorkeeper.close()


@pytest.fixture
def visitor(base: str) -> Visitor:
    """Somebody without a login."""
    return Visitor(base)
