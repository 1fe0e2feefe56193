"""Keys, scopes, limits and addresses; nothing secret is ever said."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

import pytest
import redis

from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.settings import Settings
from pipeline_platform_tests.integration.test_gateway.kit import Client, Shared, serving, until

Connected = Callable[..., Client]


def test_scopes(base: str, connected: Connected) -> None:
    ingest, read, admin = connected(base, "ingest"), connected(base, "read"), connected(base, "admin")
    assert [who.post().status_code for who in (ingest, read, admin)] == [202, 403, 202]
    assert [who.get("/v1/stats").status_code for who in (ingest, read, admin)] == [403, 200, 200]
    receipt = ingest.post().headers["Location"]
    assert [who.get(receipt).status_code for who in (ingest, read, admin)] == [200, 200, 200]
    assert "insufficient_scope" in read.post().headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Basic cHA6cHA="},
        {"Authorization": "Bearer pp_00000000_" + "a" * 32},
        {"Authorization": "Bearer " + "x" * 5000},
        {"Authorization": b"Bearer \xff\xfe"},
        {"X-API-Key": "nonsense"},
    ],
)
def test_without_a_good_key_it_is_401(shared: Shared, connected: Connected, headers: dict[str, str]) -> None:
    nobody = connected(shared.client.base)
    for answer in (nobody.post(headers=headers), nobody.get("/v1/streams", headers=headers)):
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert answer.headers["Content-Type"] == "application/problem+json"


def test_x_api_key_and_a_key_with_the_right_id_but_another_secret(
    client: Client, base: str, connected: Connected
) -> None:
    nobody = connected(base)
    assert nobody.post(headers={"X-API-Key": client.token}).status_code == 202
    assert (
        nobody.post(headers={"X-API-Key": client.token[:-1] + ("A" if client.token[-1] != "A" else "B")}).status_code
        == 401
    )


def test_a_new_key_works_at_once_and_a_revoked_one_ends(
    base: str, redis_client: redis.Redis, connected: Connected
) -> None:
    store = KeyStore(redis_client)
    client = connected(base, "ingest")
    assert client.post().status_code == 202
    store.revoke(client.token.split("_")[1])
    until(lambda: client.post().status_code == 401, 5)


def test_the_limit_of_a_key(settings: Settings, connected: Connected) -> None:
    with serving(settings.model_copy(update={"rate_limit_key": 5.0, "rate_limit_burst": 2.0})) as base:
        client, other = connected(base, "ingest"), connected(base, "ingest")
        answers = [client.post() for _ in range(15)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert 10 <= answers.index(refused[0]) <= 12
        assert {answer.status_code for answer in answers} == {202, 429}
        assert answers[0].headers["RateLimit-Limit"] == "10"
        assert int(answers[0].headers["RateLimit-Remaining"]) == 9
        problem = refused[0]
        assert problem.json()["status"] == 429
        assert 1 <= int(problem.headers["Retry-After"]) <= 2
        assert problem.headers["RateLimit-Remaining"] == "0"
        assert other.post().status_code == 202
        time.sleep(int(problem.headers["Retry-After"]))
        assert client.post().status_code == 202


def test_the_limit_holds_over_two_gateways(settings: Settings, connected: Connected) -> None:
    tight = settings.model_copy(update={"rate_limit_key": 2.0, "rate_limit_burst": 5.0})
    with serving(tight) as one, serving(tight) as two:
        first = connected(one, "ingest")
        second = Client(two, first.token)
        accepted = sum(client.post().status_code == 202 for _ in range(10) for client in (first, second))
        second.close()
        assert 10 <= accepted <= 13


def test_the_limit_of_an_address_comes_before_the_key(settings: Settings, connected: Connected) -> None:
    with serving(settings.model_copy(update={"rate_limit_ip": 1.0, "rate_limit_burst": 3.0})) as base:
        nobody = connected(base)
        assert [nobody.post().status_code for _ in range(5)] == [401, 401, 401, 429, 429]
        # Nobody has named a trusted proxy, so this is only a claim.
        assert nobody.post(headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 429


def test_trusted_proxies_are_believed_from_the_right(settings: Settings, connected: Connected) -> None:
    update = {"rate_limit_ip": 1.0, "rate_limit_burst": 2.0, "trusted_proxies": ("127.0.0.1", "10.0.0.0/8")}
    with serving(settings.model_copy(update=update)) as base:
        nobody = connected(base)

        def statuses(*forwarded: str) -> list[int]:
            return [nobody.post(headers={"X-Forwarded-For": value}).status_code for value in forwarded]

        assert statuses("203.0.113.1", "203.0.113.1", "203.0.113.1") == [401, 401, 429]
        assert statuses("203.0.113.2, 10.1.1.1") == [401]
        assert statuses("9.9.9.9, 203.0.113.1, 10.1.1.1") == [429]  # what the client itself wrote does not help
        assert statuses("2001:db8::1", "2001:db8::2", "2001:db8::3") == [401, 401, 429]  # one /64
        assert statuses("rubbish, ,") == [401]


def test_no_secret_is_said(
    base: str, client: Client, settings: Settings, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    password = str(settings.redis_url).split(":")[2].split("@")[0]
    nosy = Client(base, client.token[:-2])
    texts = [
        client.post().text,
        nosy.post().text,
        nosy.get("/v1/stats").text,
        client.post(headers={"Idempotency-Key": client.token}).text,
        client.post(b"{" + client.token.encode()).text,
        client.get("/metrics").text,
        client.get("/readyz").text,
        client.get("/openapi.json").text,
        client.get("/v1/stats").text,
    ]
    nosy.close()
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("urllib3")]
    secret = client.token.split("_", 2)[2][:-2]
    for text in (*texts, *logged, *capfd.readouterr()):
        assert secret not in text
        assert password not in text
