"""Who is asking: API keys from the cache of what Redis holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor

from pipeline_platform.errors import QueueRefusedError, QueueUnavailableError, TransientError
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform.queue.keys import Key, KeyStore, token_id

REFRESH_SECONDS = 2.0
_MISS_SECONDS = 0.1  # unknown tokens make Redis be asked at most this often, however many are sent
_MAX_TOKEN = 128


class KeyCache:
    """All keys, refreshed in the background; what is cached stays good while Redis is away."""

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

    async def find(self, token: str) -> Key | None:
        """The key of a token. One that is not in the cache may be a second old: then Redis decides, not the cache."""
        arrived = self._clock()
        key = self.known(token)
        while key is None and token_id(token) is not None and self._asked_at < arrived:
            await asyncio.sleep(self._asked_at + _MISS_SECONDS - self._clock())
            await self.refresh()
            key = self.known(token)
        if self._keys is None:
            raise QueueUnavailableError("The API keys cannot be read.")
        return key


def presented_token(authorization: bytes, api_key: bytes) -> str:
    """The token of `Authorization: Bearer ...` or `X-API-Key: ...`; a 401 problem when there is none."""
    scheme, _, rest = authorization.partition(b" ")
    raw = rest.strip() if scheme.lower() == b"bearer" else api_key.strip()
    if not raw:
        raise unauthorized("Send an API key as `Authorization: Bearer <key>` or `X-API-Key: <key>`.")
    if len(raw) > _MAX_TOKEN or not raw.isascii():
        raise unauthorized("The API key is not known, or was revoked.")
    return raw.decode()


def require_scope(key: Key | None, scopes: tuple[str, ...]) -> Key:
    """The key if it is good for one of `scopes`; otherwise a 401 or 403 problem."""
    if key is None:
        raise unauthorized("The API key is not known, or was revoked.", error="invalid_token")
    if not any(key.allows(scope) for scope in scopes):
        wanted = " or ".join(scopes)
        challenge = f'Bearer realm="pipeline-platform", error="insufficient_scope", scope="{scopes[0]}"'
        raise ProblemError(
            "forbidden", f"This needs an API key with the scope {wanted}.", headers={"WWW-Authenticate": challenge}
        )
    return key


def unauthorized(detail: str, error: str = "") -> ProblemError:
    """The 401, with its challenge."""
    challenge = 'Bearer realm="pipeline-platform"' + (f', error="{error}"' if error else "")
    return ProblemError("unauthorized", detail, headers={"WWW-Authenticate": challenge})
