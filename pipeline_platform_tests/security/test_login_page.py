"""The login page and its routes, over real HTTP."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import pytest
import redis

from pipeline_platform.access.doorkeeper import TRIES_OF_ADDRESS
from pipeline_platform.access.links import one_time_link
from pipeline_platform.access.pages import BODY_SECONDS, MAX_BODY, same_site
from pipeline_platform_tests.security import access_kit
from pipeline_platform_tests.security.access_kit import Journal, Visitor, key

client, journal, base, visitor = access_kit.client, access_kit.journal, access_kit.base, access_kit.visitor


def test_log_in_look_log_out(visitor: Visitor, client: redis.Redis, journal: Journal) -> None:
    key_id, token = key(client, "read")
    done = visitor.login(token)
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert visitor.get("/whoami").json() == {"name": f"key {key_id}", "role": "viewer", "via": "key"}
    assert f"key {key_id}" in visitor.get("/login").text
    kept = visitor.cookie
    out = visitor.post("/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/login?out")
    assert visitor.cookie == ""
    assert "You are logged out" in visitor.get("/login?out").text
    visitor.http.cookies.set("pp_session", kept)
    assert visitor.get("/whoami").status_code == 401
    assert [line[:3] for line in journal.lines] == [
        ("login", f"key {key_id}", "ok"),
        ("logout", f"key {key_id}", "ok"),
    ]


def test_the_cookie_is_for_the_server_alone(visitor: Visitor, client: redis.Redis) -> None:
    cookie = visitor.login(key(client, "read")[1]).headers["set-cookie"]
    assert cookie.startswith("pp_session=")
    assert {"HttpOnly", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert "Secure" not in cookie
    assert "Domain" not in cookie


def test_behind_tls_the_cookie_is_for_this_host_over_tls_only(visitor: Visitor, client: redis.Redis) -> None:
    token = key(client, "read")[1]
    form = {"name": "", "secret": token}
    done = visitor.post("/login", form, origin="https://secure.test", Host="secure.test")
    cookie = done.headers["set-cookie"]
    assert cookie.startswith("__Host-pp_session=")
    assert {"HttpOnly", "Path=/", "SameSite=lax", "Secure"} <= set(cookie.split("; "))
    assert done.headers["strict-transport-security"]
    value = cookie.partition("=")[2].partition(";")[0]
    there = {"Host": "secure.test"}
    assert visitor.get("/whoami", Cookie=f"__Host-pp_session={value}", **there).status_code == 200
    # A cookie that a page without TLS, or of another host of the domain, can have set is none there.
    assert visitor.get("/whoami", Cookie=f"pp_session={value}", **there).status_code == 401


def test_a_wrong_secret_is_said_in_words_and_the_name_is_kept(visitor: Visitor, journal: Journal) -> None:
    done = visitor.login("wrong", '"><script>alert(1)</script>')
    assert done.status_code == 401
    assert 'role="alert"' in done.text
    assert "did not match" in done.text
    assert "<script>alert" not in done.text
    assert "&quot;&gt;&lt;script&gt;alert" in done.text
    assert "wrong" not in done.text
    assert journal.lines[0][0] == "login-refused"
    assert "set-cookie" not in done.headers


def test_a_password_in_the_wrong_field_is_not_kept(visitor: Visitor, journal: Journal) -> None:
    visitor.login("x", "My Secret! 123")
    visitor.login("x", "otto")
    assert [actor for _, actor, _, _ in journal.lines] == ["user ?", "user otto"]


def test_too_many_tries_are_told_when_to_come_back(visitor: Visitor, client: redis.Redis) -> None:
    for _ in range(TRIES_OF_ADDRESS):
        assert visitor.login("wrong").status_code == 401
    done = visitor.login(key(client, "admin")[1])
    assert done.status_code == 429
    assert 0 < int(done.headers["Retry-After"]) <= 61
    assert "Too many tries" in done.text
    code = one_time_link(client, "", key(client, "admin")[1]).partition("=")[2]
    assert visitor.post("/login/code", {"code": code}).status_code == 303  # a link still works


def test_a_code_logs_in_once(visitor: Visitor, base: str, client: redis.Redis) -> None:
    code = one_time_link(client, base, key(client, "admin")[1]).partition("#code=")[2]
    done = visitor.post("/login/code", {"code": code, "next": "/operators"})
    assert (done.status_code, done.headers["location"]) == (303, "/operators")
    assert visitor.get("/whoami").json()["via"] == "link"
    again = Visitor(base).post("/login/code", {"code": code})
    assert again.status_code == 401
    assert "used already" in again.text


def test_a_second_login_ends_the_first(visitor: Visitor, base: str, client: redis.Redis) -> None:
    visitor.login(key(client, "read")[1])
    first = visitor.cookie
    visitor.login(key(client, "admin")[1])
    old = Visitor(base)
    old.http.cookies.set("pp_session", first)
    assert old.get("/whoami").status_code == 401
    assert visitor.get("/whoami").json()["role"] == "admin"


def test_a_cookie_that_was_there_before_is_never_the_sessions(visitor: Visitor, client: redis.Redis) -> None:
    visitor.http.cookies.set("pp_session", "planted", domain=urlsplit(visitor.base).hostname or "")
    visitor.login(key(client, "read")[1])
    assert "planted" not in visitor.http.cookies.get_dict().values()


@pytest.mark.parametrize(
    "path",
    [
        *("https://evil.test", "//evil.test", "/\\evil.test", "\\/evil.test", "/\t/evil.test", "/\n//evil.test"),
        *("javascript:alert(1)", "evil", "", " /", "/a b", "/é", "/" + "a" * 3000, "/x\r\nSet-Cookie: a=b"),
    ],
)
def test_a_login_leads_nowhere_else(visitor: Visitor, client: redis.Redis, path: str) -> None:
    assert same_site(path) == "/"
    assert visitor.login(key(client, "read")[1], following=path).headers["location"] == "/"


@pytest.mark.parametrize("path", ["/", "/runs", "/locations/x/asset-groups?view=a%20b&c=d"])
def test_a_login_leads_back(path: str) -> None:
    assert same_site(path) == path


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"secret=" + b"x" * MAX_BODY, "application/x-www-form-urlencoded", 413),
        (b'{"secret": "x"}', "application/json", 415),
        (b"secret=%ff%fe", "application/x-www-form-urlencoded", 401),
        (b"\xff\xfe=1", "application/x-www-form-urlencoded", 400),
        (b"secret=a&secret=b", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"f%d=1" % n for n in range(50)), "application/x-www-form-urlencoded", 400),
        (b"", "application/x-www-form-urlencoded", 401),
        (b"secret=x", "Application/X-WWW-Form-Urlencoded; charset=utf-8;", 401),
        (b"secret=x", 'application/x-www-form-urlencoded;charset="UTF-8"', 401),
        (b"secret=x", "application/x-www-form-urlencoded; charset=utf-16", 415),
        (b"secret=x", "application/x-www-form-urlencoded charset=utf-8", 415),
    ],
)
def test_a_body_that_is_no_login(visitor: Visitor, body: bytes, kind: str, status: int) -> None:
    answer = visitor.post("/login", body, **{"Content-Type": kind})
    assert answer.status_code == status
    assert "<form" in answer.text


def test_a_body_that_does_not_come_is_not_waited_for(
    visitor: Visitor, base: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert BODY_SECONDS == 10
    monkeypatch.setattr("pipeline_platform.access.pages.BODY_SECONDS", 0.5)
    parts = urlsplit(base)
    head = f"POST /login HTTP/1.1\r\nHost: {parts.netloc}\r\nOrigin: {base}\r\nContent-Length: 100\r\n"
    head += "Content-Type: application/x-www-form-urlencoded\r\n\r\nsecret=x"
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as slow:
        slow.sendall(head.encode())
        assert slow.recv(100).startswith(b"HTTP/1.1 408 ")


def test_the_page_lets_nothing_run_but_its_own_script(visitor: Visitor) -> None:
    answer = visitor.get("/login")
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(",")[0].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["script-src"].startswith("'sha256-")
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert policy["form-action"] == "'self'"
    assert policy["base-uri"] == "'none'"
    assert answer.headers["Cache-Control"] == "no-store"
    assert " style=" not in answer.text
    assert " onclick=" not in answer.text


@pytest.mark.parametrize(("method", "path"), [("PUT", "/login"), ("DELETE", "/logout"), ("GET", "/logout")])
def test_with_other_methods_they_are_closed(visitor: Visitor, base: str, method: str, path: str) -> None:
    """An app may have a route that takes every path, and its GET /logout is not ours."""
    answer = visitor.http.request(method, base + path, headers={"Origin": base}, timeout=10)
    assert answer.status_code == 401
