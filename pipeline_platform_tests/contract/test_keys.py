"""The promise of the key store: tokens are shown once, kept hashed, and end when they are revoked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from pipeline_platform.errors import PermanentError, QueueUnavailableError
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import KEYS, KeyStore, token_id


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    client = connect(redis_url)
    yield client
    client.close()


@pytest.fixture
def store(client: redis.Redis) -> KeyStore:
    return KeyStore(client)


def test_a_token_is_good_for_its_key_only(store: KeyStore) -> None:
    key, token = store.create("press hall", ["ingest"])
    other, other_token = store.create("dashboard", ["read"])
    assert token.startswith(f"pp_{key.id}_")
    assert token_id(token) == key.id
    assert key.matches(token)
    assert not key.matches(other_token)
    assert not key.matches(token + "x")
    assert store.all_hashes() == {key.id: key, other.id: other}
    assert store.list() == [key, other]


def test_admin_implies_the_other_scopes(store: KeyStore) -> None:
    admin, _ = store.create("boss", ["admin"])
    reader, _ = store.create("reader", ["read"])
    assert all(admin.allows(scope) for scope in ("ingest", "read", "admin"))
    assert [reader.allows(scope) for scope in ("ingest", "read", "admin")] == [False, True, False]


def test_a_revoked_key_matches_nothing(store: KeyStore) -> None:
    key, token = store.create("old", ["ingest"])
    assert store.revoke(key.id)
    assert store.revoke(key.id)
    assert not store.revoke("00000000")
    revoked = store.all_hashes()[key.id]
    assert revoked.revoked_at is not None
    assert not revoked.matches(token)


def test_the_token_is_nowhere_in_redis_nor_in_reprs(store: KeyStore, client: redis.Redis) -> None:
    key, token = store.create("quiet", ["ingest"])
    secret = token.split("_", 2)[2]
    assert secret.encode() not in client.hget(KEYS, key.id)  # type: ignore[operator]
    assert secret not in repr(key)
    assert key.sha256.hex() not in repr(key)


@pytest.mark.parametrize(("name", "scopes"), [("x", ["write"]), ("x", []), ("", ["read"]), ("a\nb", ["read"])])
def test_a_bad_key_is_refused(store: KeyStore, name: str, scopes: list[str]) -> None:
    with pytest.raises(PermanentError):
        store.create(name, scopes)


def test_an_unreachable_server_is_said_without_its_url() -> None:
    with connect("redis://:hunter2@127.0.0.1:1/0", timeout=1.0) as client:
        with pytest.raises(QueueUnavailableError) as caught:
            KeyStore(client).list()
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "pp_", "pp_zzzzzzzz_" + "a" * 32, "pp_01234567_short", "pp_01234567_" + "a" * 65])
def test_what_does_not_look_like_a_token(text: str) -> None:
    assert token_id(text) is None
