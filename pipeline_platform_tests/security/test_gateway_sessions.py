"""People at the gateway: the same login, roles and end of it as at the Dagster UI."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import requests
import sqlalchemy as sa

from pipeline_platform.access.building import build_doorkeeper
from pipeline_platform.access.links import one_time_link
from pipeline_platform.access.passwords import digest_of
from pipeline_platform.doors import access_config
from pipeline_platform.local.ports import free_port
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse import users
from pipeline_platform_tests.integration.batches import rows
from pipeline_platform_tests.integration.test_gateway import conftest as gateway
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Pipeline, serving, until
from pipeline_platform_tests.security import access_kit
from pipeline_platform_tests.security.access_kit import Journal, Visitor, key, small_app

template_database, engine, redis_client = gateway.template_database, gateway.engine, gateway.redis_client
settings, pipeline, base = gateway.settings, gateway.pipeline, gateway.base
PASSWORD = "seven green bottles"


@pytest.fixture
def visitor(base: str) -> Visitor:
    """Somebody without a login."""
    return Visitor(base)


def user(engine: sa.Engine, visitor: Visitor, name: str, role: str) -> Visitor:
    """A user who is logged in."""
    users.add_user(engine, name, digest_of(PASSWORD), role, created_by="test")
    assert visitor.login(PASSWORD, name).status_code == 303
    return visitor


def change(visitor: Visitor, path: str, body: Any, **headers: str) -> requests.Response:
    """POST JSON with the cookie."""
    return visitor.http.post(visitor.base + path, json=body, headers=headers, timeout=20)


READS = ("/v1/streams", "/v1/streams/telemetry", "/v1/assets", "/v1/alerts", "/v1/stats")
REPLAY = {"filter": {"states": ["open"]}}
OPERATES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/streams/telemetry/resume", {}),
    ("/v1/dead-letters/replay", REPLAY),
)
ADMINS = ("/v1/dead-letters", "/v1/replays", "/v1/audit")


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_a_session_has_its_roles_scopes(base: str, visitor: Visitor, engine: sa.Engine, role: str) -> None:
    user(engine, visitor, "otto", role)
    assert visitor.get("/whoami").json() == {"name": "otto", "role": role, "via": "user"}
    assert {visitor.get(path).status_code for path in READS} == {200}
    for path, body in OPERATES:
        allowed = change(visitor, path, body, Origin=base).status_code != 403
        assert allowed == (role != "viewer"), path
    for path in ADMINS:
        assert visitor.get(path).status_code == (200 if role == "admin" else 403)


def test_without_a_login_it_is_as_it_was(visitor: Visitor) -> None:
    for path in READS:
        assert visitor.get(path).status_code == 401
        assert visitor.get(path, Cookie="pp_session=made-up").status_code == 401
        assert visitor.get(path, Cookie="theme=dark").status_code == 401
    assert visitor.get("/healthz").status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.test", "null", None])
def test_another_site_changes_nothing(visitor: Visitor, engine: sa.Engine, origin: str | None) -> None:
    user(engine, visitor, "otto", "admin")
    headers = {} if origin is None else {"Origin": origin}
    for path, body in (*OPERATES, ("/v1/dead-letters/discard", REPLAY)):
        answer = change(visitor, path, body, **headers)
        assert answer.status_code == 403, path
        assert "own pages" in answer.json()["detail"]
    assert rows(engine, "select count(*) from replays") == [(0,)]


def test_a_foreign_host_gets_nothing_with_a_login(visitor: Visitor, engine: sa.Engine) -> None:
    user(engine, visitor, "otto", "admin")
    """Addresses are no names that somebody could let lead here, so keys may come by any; cookies may not."""
    assert visitor.get("/v1/streams", Host="10.0.0.7", Cookie=f"pp_session={visitor.cookie}").status_code == 403
    assert visitor.get("/login", Host="10.0.0.7").status_code == 421


def test_who_asked_is_kept(
    base: str, visitor: Visitor, engine: sa.Engine, pipeline: Pipeline, redis_client: redis.Redis
) -> None:
    user(engine, visitor, "otto", "admin")
    key_id, token = key(redis_client, "admin")
    by_key = {"Authorization": f"Bearer {token}"}
    for headers in ({"Origin": base}, by_key):
        requests.post(base + "/v1/streams/telemetry/events", json={"x": 1}, headers=by_key, timeout=20)
        pipeline.run("telemetry")
        body = {"filter": {"states": ["open"]}, "dry_run": False}
        done = change(visitor, "/v1/dead-letters/discard", body, **headers)
        assert done.status_code == 200, done.text
        assert change(visitor, "/v1/streams/telemetry/resume", {}, **headers).status_code == 200
    assert rows(engine, "select requested_by from replays order by id") == [("user otto",), (f"key {key_id}",)]
    until(lambda: len(rows(engine, "select 1 from audit where event in ('discard', 'resume')")) == 4, 10)
    told = rows(engine, "select distinct actor, event from audit where event in ('login', 'discard') order by 1, 2")
    assert told == [(f"key {key_id}", "discard"), ("user otto", "discard"), ("user otto", "login")]


def test_it_ends_with_the_user_within_two_seconds(visitor: Visitor, engine: sa.Engine) -> None:
    user(engine, visitor, "otto", "viewer")
    assert visitor.get("/v1/streams").status_code == 200
    users.disable(engine, "otto")
    time.sleep(2.1)
    assert visitor.get("/v1/streams").status_code == 401


def test_logged_in_here_is_logged_in_there(
    visitor: Visitor, settings: Settings, redis_client: redis.Redis, base: str
) -> None:
    """The Dagster UI's server is another process with a doorkeeper of its own; the cookie is the same."""
    config = access_config(settings, public_url=None, host="127.0.0.1", port=free_port())
    other = build_doorkeeper(config, Journal().record)
    code = one_time_link(redis_client, base, key(redis_client, "admin")[1]).partition("#code=")[2]
    visitor.post("/login/code", {"code": code})
    with access_kit.served(small_app(other), config.port) as there:
        elsewhere = Visitor(there)
        elsewhere.http.cookies.set("pp_session", visitor.cookie)
        assert elsewhere.get("/whoami").json() == visitor.get("/whoami").json()
        elsewhere.post("/logout")
        time.sleep(2.1)
        assert visitor.get("/v1/streams").status_code == 401
    other.close()


def test_a_key_beside_a_cookie_decides_alone(visitor: Visitor, engine: sa.Engine, redis_client: redis.Redis) -> None:
    user(engine, visitor, "otto", "admin")
    reader = {"Authorization": f"Bearer {key(redis_client, 'read')[1]}"}
    assert visitor.get("/v1/dead-letters", **reader).status_code == 403
    assert visitor.get("/v1/streams", Authorization="Bearer nonsense").status_code == 401


def test_events_are_sent_with_keys_only(base: str, visitor: Visitor, engine: sa.Engine) -> None:
    user(engine, visitor, "otto", "admin")
    assert change(visitor, "/v1/streams/telemetry/events", GOOD, Origin=base).status_code == 401


def test_each_answer_has_each_safe_header_once(visitor: Visitor) -> None:
    for path in ("/login", "/healthz", "/v1/streams"):
        headers = visitor.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"


@pytest.fixture
def proxied(settings: Settings) -> Iterator[str]:
    """A gateway behind oauth2-proxy."""
    more = {"trusted_proxies": ("127.0.0.1",), "proxy_secret": "0123456789abcdef", "oidc_roles": (("data", "viewer"),)}
    with serving(settings.model_copy(update=more)) as url:
        yield url


def test_a_trusted_proxy_vouches_at_the_gateway_too(proxied: str) -> None:
    headers = {"X-Forwarded-User": "anna", "X-Forwarded-Groups": "data", "X-Proxy-Secret": "0123456789abcdef"}
    visitor = Visitor(proxied)
    assert visitor.get("/v1/streams", **headers).status_code == 200
    assert visitor.get("/v1/dead-letters", **headers).status_code == 403
    assert visitor.get("/v1/streams", **{**headers, "X-Proxy-Secret": "0123456789abcdeF"}).status_code == 401
    assert visitor.get("/whoami", **headers).json() == {"name": "anna", "role": "viewer", "via": "header"}


def test_the_login_of_a_revoked_key_ends(visitor: Visitor, redis_client: redis.Redis) -> None:
    key_id, token = key(redis_client, "read")
    visitor.login(token)
    assert visitor.get("/v1/streams").status_code == 200
    KeyStore(redis_client).revoke(key_id)
    time.sleep(2.1)
    assert visitor.get("/v1/streams").status_code == 401


def test_a_key_for_named_streams_is_no_login(visitor: Visitor, redis_client: redis.Redis) -> None:
    _, token = KeyStore(redis_client).create("narrow", ["read"], streams=["telemetry"])
    assert visitor.login(token).status_code == 401
