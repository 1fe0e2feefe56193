"""The gate in front of an app: what is let in, over real HTTP and real WebSockets."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
import redis
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as open_socket
from websockets.typing import Origin

from pipeline_platform.access.config import AccessConfig
from pipeline_platform.local.ports import free_port
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.sessions import SessionStore
from pipeline_platform_tests.security import access_kit
from pipeline_platform_tests.security.access_kit import Journal, Visitor, key, make_doorkeeper, served, small_app

client, journal, base, visitor = access_kit.client, access_kit.journal, access_kit.base, access_kit.visitor


def bearer(token: str) -> dict[str, str]:
    """The header of an API key."""
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("path", ["/", "/operators", "/nowhere", "/login/", "//open", "/open/", "/login/../operators"])
def test_every_path_is_closed_that_is_not_listed(visitor: Visitor, path: str) -> None:
    answer = visitor.get(path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_listed_path_is_open(visitor: Visitor) -> None:
    assert visitor.get("/open").json() == {}


def test_a_page_without_a_login_leads_to_the_login_and_back(visitor: Visitor, client: redis.Redis) -> None:
    answer = visitor.get("/operators?a=1&b=2", accept="text/html")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/operators%3Fa%3D1%26b%3D2")
    _, token = key(client, "admin")
    done = visitor.login(token, following="/operators?a=1&b=2")
    assert (done.status_code, done.headers["location"]) == (303, "/operators?a=1&b=2")
    assert visitor.get("/operators").json()["role"] == "admin"


def test_a_token_is_an_identity_and_needs_no_origin(visitor: Visitor, client: redis.Redis) -> None:
    key_id, token = key(client, "admin")
    answer = visitor.post("/", origin=None, **bearer(token))
    assert (answer.status_code, answer.json()["name"]) == (200, f"key {key_id}")
    assert visitor.post("/", origin=None, **{"X-API-Key": token}).status_code == 200


def test_an_ingest_key_is_nobody_here(visitor: Visitor, client: redis.Redis) -> None:
    assert visitor.get("/", **bearer(key(client, "ingest")[1])).status_code == 401


def test_the_apps_own_rule_refuses_and_is_recorded(visitor: Visitor, client: redis.Redis, journal: Journal) -> None:
    key_id, token = key(client, "read")
    assert visitor.get("/", **bearer(token)).status_code == 200
    assert visitor.get("/operators", **bearer(token)).status_code == 403
    assert ("forbidden", f"key {key_id}", "refused", "127.0.0.1") in journal.lines


@pytest.mark.parametrize("host", ["evil.test", "127.0.0.1", "localhost:1", "pipelines.test.evil.test", ""])
def test_a_foreign_host_is_refused(visitor: Visitor, host: str) -> None:
    assert visitor.get("/open", Host=host).status_code in (400, 421)
    assert visitor.get("/login", Host=host).status_code in (400, 421)


@pytest.mark.parametrize("host", ["pipelines.test", "PIPELINES.test", "pipelines.test:80"])
def test_the_public_name_is_ours(visitor: Visitor, host: str) -> None:
    assert visitor.get("/open", Host=host).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.test", "null", "https://pipelines.test", "http://pipelines.test.evil.test", None]
)
def test_a_foreign_origin_changes_nothing(visitor: Visitor, client: redis.Redis, origin: str | None) -> None:
    visitor.login(key(client, "admin")[1])
    assert visitor.post("/").status_code == 200
    assert visitor.post("/", origin=origin).status_code == 403
    assert visitor.post("/logout", origin=origin).status_code == 403
    assert visitor.get("/").status_code == 200


def test_a_login_from_another_site_is_refused(visitor: Visitor, client: redis.Redis) -> None:
    form = {"name": "", "secret": key(client, "admin")[1]}
    assert visitor.post("/login", form, origin="https://evil.test").status_code == 403
    assert visitor.cookie == ""


def test_every_answer_has_the_headers_that_keep_browsers_safe(visitor: Visitor) -> None:
    for answer in (visitor.get("/open"), visitor.get("/"), visitor.get("/login"), visitor.get("/", Host="evil.test")):
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Referrer-Policy"] == "same-origin"


def socket(base: str, cookie: str = "", *, origin: str | None = None, token: str = "") -> ClientConnection:
    """A WebSocket as a browser opens it, or with a token as a program does."""
    headers = ({"Cookie": f"pp_session={cookie}"} if cookie else {}) | (bearer(token) if token else {})
    sent = None if origin is None else Origin(origin)
    return open_socket(base.replace("http", "ws") + "/socket", additional_headers=headers, origin=sent, proxy=None)


def test_a_socket_needs_a_login_and_our_origin(base: str, visitor: Visitor, client: redis.Redis) -> None:
    key_id, token = key(client, "admin")
    visitor.login(token)
    refused = [("", base), (visitor.cookie, "https://evil.test"), (visitor.cookie, "null"), (visitor.cookie, None)]
    for cookie, origin in refused:
        with pytest.raises(InvalidStatus) as caught:
            socket(base, cookie, origin=origin)
        assert caught.value.response.status_code == 403
    for opened in (socket(base, visitor.cookie, origin=base), socket(base, token=token)):
        with opened:
            assert opened.recv() == f"key {key_id}"
            opened.send("again")
            assert opened.recv() == "again"


@pytest.mark.parametrize("ending", ["logout", "revoke"])
def test_an_idle_socket_is_closed_when_the_login_ends(
    base: str, visitor: Visitor, client: redis.Redis, ending: str
) -> None:
    key_id, token = key(client, "admin")
    visitor.login(token)
    with socket(base, visitor.cookie, origin=base) as opened:
        opened.recv()
        if ending == "logout":
            visitor.post("/logout")
        else:
            KeyStore(client).revoke(key_id)
        with pytest.raises(ConnectionClosed) as caught:
            opened.recv(timeout=10)  # nothing is sent by either side
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4401


def test_while_redis_is_away_nobody_is_let_in_and_it_is_said(redis_url: str) -> None:
    parts = urlsplit(redis_url)
    config = AccessConfig(redis_url.replace(f":{parts.port}/", f":{free_port()}/"), free_port())
    doorkeeper = make_doorkeeper(config.redis_url, config.names, timeout=1.0)
    with served(small_app(doorkeeper), config.port) as base:
        visitor = Visitor(base)
        for headers in ({"Cookie": "pp_session=somebodys"}, bearer("pp_00000000_" + "x" * 32)):
            answer = visitor.get("/", **headers)
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
            page = visitor.get("/", accept="text/html", **headers)
            assert page.status_code == 503
            assert "try again" in page.text
        assert visitor.login("pp_00000000_" + "x" * 32).status_code == 503
        assert visitor.get("/open").status_code == 200  # without a login nothing has to be asked
        with pytest.raises(InvalidStatus) as caught:
            socket(base, "somebodys", origin=base)
        assert caught.value.response.status_code == 403
    doorkeeper.close()


def test_an_open_socket_is_no_use_of_the_session(redis_url: str, client: redis.Redis) -> None:
    config = AccessConfig(redis_url, free_port())
    doorkeeper = make_doorkeeper(redis_url, config.names, idle=3.0)
    cookie_of = SessionStore(client, absolute=60, idle=3.0)
    with served(small_app(doorkeeper), config.port) as base:
        visitor = Visitor(base)
        visitor.login(key(client, "admin")[1])
        with socket(base, visitor.cookie, origin=base) as opened:
            opened.recv()
            with pytest.raises(ConnectionClosed):
                opened.recv(timeout=15)
        assert cookie_of.read(visitor.cookie) is None
    doorkeeper.close()
