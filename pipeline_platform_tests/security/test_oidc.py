"""Single sign-on against an identity provider that speaks the real protocol, rightly and wrongly."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import redis
import requests
from joserfc.jwk import RSAKey

from pipeline_platform.access.building import build_doorkeeper
from pipeline_platform.access.config import AccessConfig, OidcConfig
from pipeline_platform.access.oidc import ALGORITHMS
from pipeline_platform.access.roles import Role
from pipeline_platform.doors import access_config
from pipeline_platform.errors import SettingError
from pipeline_platform.local.ports import free_port
from pipeline_platform.settings import Settings
from pipeline_platform_tests.security import access_kit
from pipeline_platform_tests.security.access_kit import Journal, Visitor, served, small_app
from pipeline_platform_tests.security.identity_provider import CLIENT, SECRET, IdentityProvider

client, journal = access_kit.client, access_kit.journal
ROLES = {"data": Role.VIEWER, "data-admins": Role.ADMIN}


@pytest.fixture
def provider() -> Iterator[IdentityProvider]:
    """The identity provider, on a port of its own."""
    port = free_port()
    provider = IdentityProvider(f"http://127.0.0.1:{port}")
    with served(provider.app(), port):
        yield provider


@pytest.fixture
def visitor(redis_url: str, journal: Journal, provider: IdentityProvider) -> Iterator[Visitor]:
    """A browser at our app, which trusts the provider."""
    oidc = OidcConfig(provider.issuer, CLIENT, SECRET)
    config = AccessConfig(redis_url, free_port(), group_roles=ROLES, oidc=oidc)
    doorkeeper = build_doorkeeper(config, journal)
    with served(small_app(doorkeeper), config.port) as base:
        yield Visitor(base)
    doorkeeper.close()


def go(visitor: Visitor, following: str = "/operators") -> str:
    """Begins, and gives the address that the provider sends the browser back to."""
    away = visitor.get(f"/login/oidc?next={following}")
    assert away.status_code == 303, away.text
    back = requests.get(away.headers["location"], allow_redirects=False, timeout=10)
    assert back.status_code == 302
    assert back.headers["location"].startswith(visitor.base + "/login/oidc/callback?")
    return back.headers["location"].removeprefix(visitor.base)


@pytest.mark.parametrize(
    ("groups", "role"), [(["staff", "data"], "viewer"), (["data-admins", "data"], "admin"), ("data", "viewer")]
)
def test_somebody_with_a_group_comes_in_with_its_role(
    visitor: Visitor, provider: IdentityProvider, groups: object, role: str, journal: Journal
) -> None:
    provider.claims["groups"] = groups
    done = visitor.get(go(visitor))
    assert (done.status_code, done.headers["location"]) == (303, "/operators")
    assert visitor.get("/whoami").json() == {"name": "anna", "role": role, "via": "oidc"}
    assert ("login", "oidc anna", "ok", "127.0.0.1") in journal.lines
    assert visitor.http.cookies.get_dict().keys() == {"pp_session"}
    visitor.post("/logout")
    assert visitor.get("/whoami").status_code == 401


def test_what_is_sent_away_is_bound_and_secret(visitor: Visitor, client: redis.Redis) -> None:
    away = visitor.get("/login/oidc")
    asked = parse_qs(urlsplit(away.headers["location"]).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert min(len(asked[name][0]) for name in ("state", "nonce", "code_challenge")) >= 43
    assert SECRET not in away.headers["location"]
    cookie = away.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax", "Max-Age=300", "Path=/"} <= set(cookie.split("; "))
    (slot,) = list(client.scan_iter("pp:oidc:*"))
    assert 290 < int(client.ttl(slot)) <= 300
    assert asked["state"][0].encode() not in slot


@pytest.mark.parametrize(
    "wrong",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"aud": "somebody-else"},
        {"aud": None},
        {"aud": [CLIENT, "somebody-else"], "azp": "somebody-else"},
        {"iss": "https://evil.test"},
        {"iss": None},
        {"exp": int(time.time()) - 3600},
        {"exp": None},
        {"iat": int(time.time()) + 3600},
        {"sub": None},
    ],
    ids=str.split("another-nonce no-nonce aud no-aud azp iss no-iss expired no-exp tomorrow no-sub"),
)
def test_a_token_that_is_not_for_us_now_is_refused(
    visitor: Visitor, provider: IdentityProvider, wrong: dict[str, Any], journal: Journal
) -> None:
    provider.claims |= wrong
    refused(visitor, go(visitor))
    assert journal.lines[-1][:3] == ("login-refused", "oidc", "refused")


@pytest.mark.parametrize("wrong", ["none", "HS256", "another key", "tampered"])
def test_a_token_that_the_provider_has_not_signed_is_refused(
    visitor: Visitor, provider: IdentityProvider, wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if wrong == "none":
        provider.unsigned = True
    elif wrong == "HS256":
        provider.algorithm = "HS256"
    elif wrong == "another key":
        provider.signs_with = RSAKey.generate_key(2048, {"kid": "one"})
    else:
        right = provider.id_token

        def tampered(nonce: str) -> str:
            head, _, signature = right(nonce).split(".")
            provider.claims["groups"] = ["data-admins"]
            return ".".join([head, right(nonce).split(".")[1], signature])

        monkeypatch.setattr(provider, "id_token", tampered)
    refused(visitor, go(visitor))


def test_only_signatures_by_a_private_key_are_known() -> None:
    assert {name[:2] for name in ALGORITHMS} == {"RS", "PS", "ES", "Ed"}


@pytest.mark.parametrize("groups", [[], ["staff"], "staff", None, {"data": 1}, [["data"]], 7])
def test_without_a_group_that_has_a_role_nobody_comes_in(
    visitor: Visitor, provider: IdentityProvider, groups: object, journal: Journal
) -> None:
    provider.claims["groups"] = groups
    done = visitor.get(go(visitor))
    assert done.status_code == 403
    assert "None of your groups" in done.text
    assert visitor.cookie == ""
    assert journal.lines[-1][:3] == ("login-refused", "oidc anna", "refused")


def test_another_state_is_refused(visitor: Visitor) -> None:
    back = go(visitor)
    code = parse_qs(urlsplit(back).query)["code"][0]
    refused(visitor, f"/login/oidc/callback?code={code}&state=made-up")


def test_what_comes_back_to_another_browser_is_refused(visitor: Visitor) -> None:
    """An attacker's own login, given to somebody else as a link."""
    back = go(visitor)
    other = Visitor(visitor.base)
    refused(other, back)
    other.get("/login/oidc")  # with a login of its own under way
    refused(other, back)


def test_a_state_and_a_code_are_good_once(visitor: Visitor, provider: IdentityProvider) -> None:
    back = go(visitor)
    browser = visitor.http.cookies.get("pp_oidc") or ""
    assert visitor.get(back).status_code == 303
    visitor.http.cookies.clear()
    visitor.http.cookies.set("pp_oidc", browser)
    refused(visitor, back)
    assert len(provider.token_requests) == 1
    used = provider.token_requests[0]["code"]
    fresh = parse_qs(urlsplit(go(visitor)).query)["state"][0]
    refused(visitor, f"/login/oidc/callback?code={used}&state={fresh}")


def test_a_code_of_another_login_fails_its_pkce_check(visitor: Visitor) -> None:
    """Injected: the code of one login with the state of another."""
    stolen = parse_qs(urlsplit(go(Visitor(visitor.base))).query)["code"][0]
    own = parse_qs(urlsplit(go(visitor)).query)["state"][0]
    refused(visitor, f"/login/oidc/callback?code={stolen}&state={own}")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?error=access_denied&state=x",
        "?code=x",
        "?state=x",
        "?code=a&code=b&state=x",
        "?code=a&state=" + "x" * 5000,
    ],
)
def test_what_is_no_answer_is_refused(visitor: Visitor, query: str) -> None:
    refused(visitor, f"/login/oidc/callback{query}")


def test_new_keys_of_the_provider_are_fetched(
    visitor: Visitor, provider: IdentityProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert visitor.get(go(visitor)).status_code == 303
    assert visitor.get(go(visitor)).status_code == 303
    assert provider.asked == ["discovery", "jwks"]
    provider.key = RSAKey.generate_key(2048, {"kid": "two"})
    monkeypatch.setattr("pipeline_platform.access.oidc._AGAIN_SECONDS", 0.0)
    assert visitor.get(go(visitor)).status_code == 303
    assert provider.asked == ["discovery", "jwks", "jwks"]


def test_a_provider_that_is_away_or_is_another_is_said_in_words(visitor: Visitor, provider: IdentityProvider) -> None:
    provider.says_issuer = "https://evil.test"
    answer = visitor.get("/login/oidc")
    assert answer.status_code == 503
    assert "Try again" in answer.text


def test_the_page_offers_it_and_leads_back(visitor: Visitor) -> None:
    assert 'href="/login/oidc?next=/operators"' in visitor.get("/login?next=/operators").text
    assert visitor.get(go(visitor, "https://evil.test")).headers["location"] == "/"


def test_without_it_the_routes_say_so(redis_url: str) -> None:
    config = AccessConfig(redis_url, free_port())
    doorkeeper = build_doorkeeper(config, Journal())
    with served(small_app(doorkeeper), config.port) as base:
        visitor = Visitor(base)
        assert visitor.get("/login/oidc").status_code == 404
        assert visitor.get("/login/oidc/callback?code=a&state=b").status_code == 404
        assert "single sign-on" not in visitor.get("/login").text
    doorkeeper.close()


def test_the_settings_make_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "ISSUER": "https://id.test",
        "CLIENT_ID": CLIENT,
        "CLIENT_SECRET": SECRET,
        "GROUPS_CLAIM": "roles",
        "ROLES": "data-admins=admin, data=viewer",
    }.items():
        monkeypatch.setenv(f"PIPELINE_OIDC_{name}", value)
    settings = Settings.load(redis_url="redis://127.0.0.1:1/0")
    config = access_config(settings, public_url="https://pipelines.test", host="127.0.0.1", port=3000)
    assert config.oidc == OidcConfig("https://id.test", CLIENT, SECRET, "roles")
    assert config.group_roles == ROLES
    assert SECRET not in repr(config) + repr(settings)
    monkeypatch.setenv("PIPELINE_OIDC_ROLES", "data=boss")
    with pytest.raises(SettingError, match="OIDC_ROLES"):
        Settings.load()


def test_without_the_extra_the_setting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "authlib.common.errors", None)
    monkeypatch.delitem(sys.modules, "pipeline_platform.access.oidc", raising=False)
    config = AccessConfig("redis://127.0.0.1:1/0", 3000, oidc=OidcConfig("https://id.test", CLIENT))
    with pytest.raises(SettingError, match=r"pipeline-platform\[oidc\]"):
        build_doorkeeper(config, Journal())


def refused(visitor: Visitor, back: str) -> None:
    """The answer is a refusal in words, and no login."""
    done = visitor.get(back)
    assert done.status_code == 401, done.text[-500:]
    assert "Single sign-on did not work out" in done.text
    assert visitor.cookie == ""
    assert visitor.get("/whoami").status_code == 401
