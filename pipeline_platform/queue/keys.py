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
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import orjson
import redis

from pipeline_platform.errors import PermanentError
from pipeline_platform.queue.connection import queue_errors
from pipeline_platform.queue.key_uses import last_uses

SCOPES = ("ingest", "read", "operate", "admin")
IMPLIED = {"operate": ("read",), "admin": SCOPES}  # a scope and what it is good for besides
KEYS = "pp:keys"
_TOKEN = re.compile(r"pp_([0-9a-f]{8})_[A-Za-z0-9_-]{32,64}\Z")
_MAX_NAME = 100
_MAX_STREAMS = 100


@lru_cache(256)
def granted(scopes: frozenset[str]) -> frozenset[str]:
    """These scopes and those that they imply."""
    return scopes.union(*(IMPLIED.get(scope, ()) for scope in scopes))


@dataclass(frozen=True, slots=True)
class Key:
    """One API key. `operate` implies `read`, `admin` implies all scopes. `streams` None: good for every stream."""

    id: str
    name: str
    scopes: frozenset[str]
    sha256: bytes = field(repr=False)
    created_at: datetime
    revoked_at: datetime | None = None
    streams: frozenset[str] | None = None
    expires_at: datetime | None = None
    created_by: str = ""
    last_used_at: datetime | None = field(default=None, compare=False)  # only from `KeyStore.list`

    def allows(self, scope: str) -> bool:
        """Whether the key is good for `scope`."""
        return scope in granted(self.scopes)

    def sees(self, stream: str | None) -> bool:
        """Whether the key is good for that stream; None is what belongs to no stream."""
        return self.streams is None or stream in self.streams

    def expired(self, now: datetime | None = None) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and self.expires_at <= (now or datetime.now(UTC))

    def is_of(self, token: str) -> bool:
        """Whether `token` is this key's, in constant time; says nothing of whether it is still good."""
        return hmac.compare_digest(self.sha256, hashlib.sha256(token.encode()).digest())

    def matches(self, token: str) -> bool:
        """Whether `token` is this key's, and the key is neither revoked nor expired."""
        return self.is_of(token) and self.revoked_at is None and not self.expired()


def token_id(token: str) -> str | None:
    """The id of the key that a token claims to be; None when it does not look like a token."""
    match = _TOKEN.match(token)
    return match[1] if match else None


class KeyStore:
    """Makes, lists and revokes keys. Every method raises QueueUnavailableError when Redis is away."""

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    def create(
        self,
        name: str,
        scopes: Collection[str],
        *,
        streams: Collection[str] = (),
        expires_at: datetime | None = None,
        created_by: str = "",
    ) -> tuple[Key, str]:
        """A new key and its token, which cannot be had again. No `streams` means all."""
        unknown = sorted(set(scopes) - set(SCOPES))
        if unknown or not scopes:
            raise PermanentError(
                f"{unknown[0] if unknown else 'Nothing'!r} is not a scope; there are {', '.join(SCOPES)}."
            )
        if not name.strip() or len(name) > _MAX_NAME or not name.isprintable():
            raise PermanentError(f"A key's name is 1 to {_MAX_NAME} printable characters.")
        now = datetime.now(UTC)
        if streams and "admin" in scopes:
            raise PermanentError("A key with the scope admin is for all streams; leave the streams or the scope out.")
        if len(streams) > _MAX_STREAMS:
            raise PermanentError(f"A key is for at most {_MAX_STREAMS} named streams; without any it is for all.")
        if expires_at is not None and expires_at <= now:
            raise PermanentError("A key cannot expire in the past; give a later time.")
        while True:
            key_id = secrets.token_hex(4)
            token = f"pp_{key_id}_{secrets.token_urlsafe(24)}"
            key = Key(
                key_id,
                name.strip(),
                frozenset(scopes),
                hashlib.sha256(token.encode()).digest(),
                now,
                streams=frozenset(streams) or None,
                expires_at=expires_at,
                created_by=created_by[:_MAX_NAME],
            )
            with queue_errors():
                if self._redis.hsetnx(KEYS, key_id, _dump(key)):
                    return key, token

    def list(self) -> list[Key]:
        """All keys, revoked and expired ones too, oldest first, with their last use. They hold hashes, never tokens."""
        used = last_uses(self._redis)
        keys = [replace(key, last_used_at=used.get(key.id)) for key in self.all_hashes().values()]
        return sorted(keys, key=lambda key: (key.created_at, key.id))

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
            "streams": sorted(key.streams) if key.streams is not None else None,
            "expires_at": key.expires_at.isoformat() if key.expires_at else None,
            "created_by": key.created_by,
        }
    )


def _load(key_id: str, raw: bytes) -> Key:
    record = orjson.loads(raw)
    streams = record.get("streams")
    return Key(
        key_id,
        record["name"],
        frozenset(record["scopes"]),
        bytes.fromhex(record["sha256"]),
        datetime.fromisoformat(record["created_at"]),
        _moment(record["revoked_at"]),
        frozenset(streams) if streams is not None else None,
        _moment(record.get("expires_at")),
        record.get("created_by", ""),
    )


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
