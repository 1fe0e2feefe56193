"""A proxy that vouches for people: believed only as a trusted peer with the secret, otherwise its headers are gone."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis

from pipeline_platform.access.building import build_doorkeeper
from pipeline_platform.access.config import AccessConfig
from pipeline_platform.access.roles import Role
from pipeline_platform.local.ports import free_port
from pipeline_platform_tests.security import access_kit
from pipeline_platform_tests.security.access_kit import Journal, Visitor, key, served, small_app

SECRET = "a secret of the proxy and us"
ROLES = {"data": Role.VIEWER, "data-admins": Role.ADMIN}
client = access_kit.client
Behind = Callable[..., Visitor]


@pytest.fixture
def behind(redis_url: str) -> Iterator[Behind]:
    """Serves the app with these trusted proxies and this secret."""
    with ExitStack() as stack:

        def serve(proxies: tuple[str, ...] = ("127.0.0.1",), secret: str = SECRET) -> Visitor:
            config = AccessConfig(
                redis_url, free_port(), trusted_proxies=proxies, proxy_secret=secret, group_roles=ROLES
            )
            doorkeeper = build_doorkeeper(config, Journal())
            stack.callback(doorkeeper.close)
            return Visitor(stack.enter_context(served(small_app(doorkeeper), config.port)))

        yield serve


def by_proxy(user: str = "anna@example.org", groups: str = "staff,data", secret: str | None = SECRET) -> dict[str, str]:
    """The headers of oauth2-proxy."""
    headers = {"X-Forwarded-User": user, "X-Forwarded-Groups": groups}
    return headers | ({"X-Proxy-Secret": secret} if secret is not None else {})


@pytest.mark.parametrize(
    ("groups", "role"),
    [("staff,data", "viewer"), ("data, data-admins", "admin"), ("data-admins", "admin")],
)
def test_whom_the_proxy_names_is_let_in_with_the_groups_role(behind: Behind, groups: str, role: str) -> None:
    visitor = behind()
    told = visitor.get("/", **by_proxy(groups=groups)).json()
    assert (told["name"], told["role"]) == ("anna@example.org", role)
    assert visitor.get("/whoami", **by_proxy(groups=groups)).json()["via"] == "header"


@pytest.mark.parametrize(
    "headers",
    [
        by_proxy(secret=None),
        by_proxy(secret=""),
        by_proxy(secret="a secret of the proxy and u"),
        by_proxy(groups="staff"),
        by_proxy(groups=""),
        by_proxy(groups="data-admin"),
        by_proxy(user=""),
        by_proxy(user="x" * 200),
    ],
)
def test_without_the_secret_or_a_group_nobody_comes_in(behind: Behind, headers: dict[str, str]) -> None:
    assert behind().get("/", **headers).status_code == 401


def test_another_peer_is_not_believed_whatever_it_knows(behind: Behind) -> None:
    assert behind(proxies=("192.0.2.1",)).get("/", **by_proxy()).status_code == 401


def test_without_a_secret_in_the_settings_no_header_is_believed(behind: Behind) -> None:
    visitor = behind(secret="")
    assert visitor.get("/", **by_proxy(secret="")).status_code == 401


def test_the_app_never_sees_the_headers(behind: Behind, client: redis.Redis) -> None:
    visitor = behind()
    token = {"Authorization": f"Bearer {key(client, 'read')[1]}"}
    for headers in (by_proxy(), by_proxy(secret="wrong") | token, by_proxy() | token):
        seen = visitor.get("/", **headers).json()["headers"]
        assert not {"x-forwarded-user", "x-forwarded-groups", "x-proxy-secret"} & set(seen)
    assert visitor.get("/", **by_proxy(), **token).json()["role"] == "viewer"  # a token decides alone


def test_a_change_needs_our_origin_as_with_a_cookie(behind: Behind) -> None:
    """The proxy adds its headers to what another site makes the browser send, too."""
    visitor = behind()
    assert visitor.post("/", origin="https://evil.test", **by_proxy()).status_code == 403
    assert visitor.post("/", origin=None, **by_proxy()).status_code == 403
    assert visitor.post("/", **by_proxy()).status_code == 200


def test_a_header_twice_is_none(behind: Behind) -> None:
    visitor = behind()
    parts = visitor.base.removeprefix("http://")
    connection = http.client.HTTPConnection(parts, timeout=10)
    connection.putrequest("GET", "/")
    for name, value in (*by_proxy().items(), ("X-Forwarded-User", "root")):
        connection.putheader(name, value)
    connection.endheaders()
    assert connection.getresponse().status == 401
    connection.close()
