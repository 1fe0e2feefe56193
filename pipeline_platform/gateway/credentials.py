"""Who is asking: API keys from the cache of what Redis holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

from pipeline_platform.errors import QueueRefusedError, QueueUnavailableError, TransientError
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform.queue.keys import Key, KeyStore, granted, token_id

REFRESH_SECONDS = 2.0
_MISS_SECONDS = 0.1  # unknown tokens make Redis be asked at most this often, however many are sent
_MAX_TOKEN = 128
_REALM = 'Bearer realm="pipeline-platform"'


class KeyCache:
    """All keys, refreshed in the background; what is cached stays good while Redis is away, until it expires."""

    def __init__(self, store: KeyStore, threads: Executor, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._threads = threads
        self._clock = clock
        self._keys: dict[str, Key] | None = None
        self._asked_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    @property
    def loaded(self) -> bool:
        """Whether the keys have been read at least once."""
        return self._keys is not None

    async def refresh(self) -> None:
        """Reads all keys; shared by everybody who asks at the same time."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._read())
        await asyncio.shield(self._asking)

    async def _read(self) -> None:
        self._asked_at = self._clock()
        try:
            self._keys = await asyncio.get_running_loop().run_in_executor(self._threads, self._store.all_hashes)
        except (TransientError, QueueRefusedError):
            pass  # readyz tells
        finally:
            self._asking = None

    def known(self, token: str) -> Key | None:
        """The key of a token that is in the cache and good."""
        key = self._keys.get(token_id(token) or "") if self._keys is not None else None
        return key if key is not None and key.matches(token) else None

    def former(self, token: str) -> Key | None:
        """The key of a token that was good once: it is revoked or expired."""
        key = self._keys.get(token_id(token) or "") if self._keys is not None else None
        return key if key is not None and key.is_of(token) and not key.matches(token) else None

    async def find(self, token: str) -> Key | None:
        """The key of a token. One that is not in the cache may be a second old: then Redis decides, not the cache."""
        arrived = self._clock()
        key = self.known(token)
        if key is None and self.former(token) is not None:
            return None  # what is over does not come back
        while key is None and token_id(token) is not None and self._asked_at < arrived:
            await asyncio.sleep(self._asked_at + _MISS_SECONDS - self._clock())
            await self.refresh()
            key = self.known(token)
        if self._keys is None:
            raise QueueUnavailableError("The API keys cannot be read.")
        return key


class AccessProblemError(ProblemError):
    """A 401 or 403, with what the audit is to know of it: why in a few words, and whose key it was."""

    def __init__(self, kind: str, detail: str, *, reason: str, challenge: str = "", key: Key | None = None) -> None:
        super().__init__(kind, detail, headers={"WWW-Authenticate": _REALM + challenge})
        self.reason = reason
        self.key = key
        self.told = False  # to the audit


def presented_token(authorization: bytes, api_key: bytes) -> str:
    """The token of `Authorization: Bearer ...` or `X-API-Key: ...`; a 401 problem when there is none."""
    scheme, _, rest = authorization.partition(b" ")
    raw = rest.strip() if scheme.lower() == b"bearer" else api_key.strip()
    if not raw:
        detail = "Send an API key as `Authorization: Bearer <key>` or `X-API-Key: <key>`."
        raise AccessProblemError("unauthorized", detail, reason="no key")
    if len(raw) > _MAX_TOKEN or not raw.isascii():
        raise AccessProblemError("unauthorized", _UNKNOWN, reason="unknown key")
    return raw.decode()


_UNKNOWN = "The API key is not known, or was revoked."


def unknown_key(former: Key | None) -> AccessProblemError:
    """The 401 problem of a token that is nobody's, or of a key that is over. Only the token's holder hears which."""
    detail, reason = _UNKNOWN, "unknown key"
    if former is not None:
        reason = "revoked key"
        if former.revoked_at is None and former.expires_at is not None:
            detail, reason = f"The API key expired on {former.expires_at:%Y-%m-%d at %H:%M} UTC.", "expired key"
    return AccessProblemError("unauthorized", detail, reason=reason, challenge=', error="invalid_token"', key=former)


def require_scope(key: Key, scopes: tuple[str, ...]) -> None:
    """A 403 problem unless the key is good for one of `scopes`."""
    if granted(key.scopes).isdisjoint(scopes):
        wanted = " or ".join(scopes)
        raise AccessProblemError(
            "forbidden",
            f"This needs an API key with the scope {wanted}.",
            reason=f"needs {wanted}",
            challenge=f', error="insufficient_scope", scope="{scopes[0]}"',
            key=key,
        )


def require_stream(key: Key, stream: str | None) -> None:
    """A 403 problem unless the key is good for the stream; None asks for what tells of all streams."""
    if key.sees(stream):
        return
    names = ", ".join(sorted(key.streams or ()))
    detail = f"This API key is for {names} only" + ("; this address tells of all streams." if stream is None else ".")
    reason = "all streams" if stream is None else "another stream"
    raise AccessProblemError("forbidden", detail, reason=reason, challenge=', error="insufficient_scope"', key=key)
