"""API keys in Redis, hashed: who may use the gateway, and for what.

They live beside the queue because the queue is the edge's one hard dependency: events are accepted while PostgreSQL
is away. One hash, `pp:keys`, from a key's id to its record. A token is `pp_<id>_<secret>` and is shown once; only its
SHA-256 is kept, which is enough for a secret of 192 random bits.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import orjson
import redis

from pipeline_platform.errors import PermanentError
from pipeline_platform.queue.connection import queue_errors

SCOPES = ("ingest", "read", "admin")
KEYS = "pp:keys"
_TOKEN = re.compile(r"pp_([0-9a-f]{8})_[A-Za-z0-9_-]{32,64}\Z")
_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class Key:
    """One API key. `admin` implies the other scopes."""

    id: str
    name: str
    scopes: frozenset[str]
    sha256: bytes = field(repr=False)
    created_at: datetime
    revoked_at: datetime | None = None

    def allows(self, scope: str) -> bool:
        """Whether the key is good for `scope`."""
        return scope in self.scopes or "admin" in self.scopes

    def matches(self, token: str) -> bool:
        """Whether `token` is this key's, in constant time, and the key is not revoked."""
        same = hmac.compare_digest(self.sha256, hashlib.sha256(token.encode()).digest())
        return same and self.revoked_at is None


def token_id(token: str) -> str | None:
    """The id of the key that a token claims to be; None when it does not look like a token."""
    match = _TOKEN.match(token)
    return match[1] if match else None


class KeyStore:
    """Makes, lists and revokes keys. Every method raises QueueUnavailableError when Redis is away."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def create(self, name: str, scopes: Collection[str]) -> tuple[Key, str]:
        """A new key and its token, which cannot be had again."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            raise PermanentError(
                f"{unknown[0] if unknown else 'Nothing'!r} is not a scope; there are {', '.join(SCOPES)}."
            )
        if not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
            raise PermanentError(f"A key's name is 1 to {_MAX_NAME} printable characters.")
        while True:
            key_id = secrets.token_hex(4)
            token = f"pp_{key_id}_{secrets.token_urlsafe(24)}"
            digest = hashlib.sha256(token.encode()).digest()
            key = Key(key_id, name.strip(), frozenset(scopes), digest, datetime.now(UTC))
            with queue_errors():
                if self._redis.hsetnx(KEYS, key_id, _dump(key)):
                    return key, token

    def list(self) -> list[Key]:
        """All keys, revoked ones too, oldest first. They hold hashes, never tokens."""
        return sorted(self.all_hashes().values(), key=lambda key: (key.created_at, key.id))

    def revoke(self, key_id: str) -> bool:
        """Ends a key; gateways notice within seconds. False when there is no such key, True also when it was ended."""
        with queue_errors():
            raw: Any = self._redis.hget(KEYS, key_id)
            if raw is None:
                return False
            record = orjson.loads(raw)
            if not record["revoked_at"]:
                record["revoked_at"] = datetime.now(UTC).isoformat()
                self._redis.hset(KEYS, key_id, orjson.dumps(record))
        return True

    def all_hashes(self) -> dict[str, Key]:
        """Every key by its id, for a gateway's cache."""
        with queue_errors():
            records: Any = self._redis.hgetall(KEYS)
        return {raw.decode(): _load(raw.decode(), record) for raw, record in records.items()}


def _dump(key: Key) -> bytes:
    return orjson.dumps(
        {
            "name": key.name,
            "scopes": sorted(key.scopes),
            "sha256": key.sha256.hex(),
            "created_at": key.created_at.isoformat(),
            "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
        }
    )


def _load(key_id: str, raw: bytes) -> Key:
    record = orjson.loads(raw)
    revoked = record["revoked_at"]
    return Key(
        key_id,
        record["name"],
        frozenset(record["scopes"]),
        bytes.fromhex(record["sha256"]),
        datetime.fromisoformat(record["created_at"]),
        datetime.fromisoformat(revoked) if revoked else None,
    )
