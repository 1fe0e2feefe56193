"""The two steps of single sign-on, whoever the provider is: sending the browser away, and taking it back."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Protocol, TypeVar

import orjson

from pipeline_platform.access.errors import BusyError
from pipeline_platform.access.identity import Identity
from pipeline_platform.errors import PlatformError
from pipeline_platform.queue.sessions import SessionStore, hash_of

SECONDS = 300
AT_ONCE, WAITING = 4, 16
T = TypeVar("T")


class SignOnError(PlatformError):
    """The provider's answer is refused. `reason` and `name` are for the audit, not for whoever sent it."""

    def __init__(self, reason: str, name: str = "", *, no_role: bool = False) -> None:
        super().__init__(f"Single sign-on: {reason}")
        self.reason = reason
        self.name = name
        self.no_role = no_role


@dataclass(frozen=True, slots=True)
class Began:
    """What is kept of a login under way. `browser` is the hash of what only its browser has."""

    state: str
    nonce: str
    verifier: str
    browser: str
    following: str


class Provider(Protocol):
    """An identity provider; the methods wait for it."""

    def url(self, began: Began, redirect: str) -> str: ...

    def identify(self, code: str, began: Began, redirect: str) -> tuple[Identity, str]: ...


class SingleSignOn:
    """Keeps what is under way in Redis for five minutes: any process of ours may take the browser back."""

    def __init__(self, provider: Provider, store: SessionStore) -> None:
        self._provider = provider
        self._store = store
        self._threads = ThreadPoolExecutor(AT_ONCE, "oidc")
        self._under_way = 0

    async def begin(self, following: str, redirect: str) -> tuple[str, str]:
        """Where to send the browser, and the cookie that binds what comes back to it."""
        browser = secrets.token_urlsafe(32)
        began = Began(
            secrets.token_urlsafe(32), secrets.token_urlsafe(32), secrets.token_urlsafe(48), hash_of(browser), following
        )

        def start() -> str:
            url = self._provider.url(began, redirect)
            self._store.keep_state(began.state, orjson.dumps(asdict(began)), SECONDS)
            return url

        return await self._in_thread(start), browser

    async def finish(self, state: str, code: str, browser: str, redirect: str) -> tuple[Identity, str, str]:
        """Who it is, the provider's name for them, and where they wanted to go. A state is good once."""

        def end() -> tuple[Identity, str, str]:
            kept = self._store.take_state(state)
            if kept is None:
                raise SignOnError("unknown state")
            began = Began(**orjson.loads(kept))
            if not browser or not hmac.compare_digest(hash_of(browser), began.browser):
                raise SignOnError("another browser's state")
            identity, subject = self._provider.identify(code, began, redirect)
            return identity, subject, began.following

        return await self._in_thread(end)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._under_way >= AT_ONCE + WAITING:
            raise BusyError("Too many logins at the same time; try again in a few seconds.")
        self._under_way += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._under_way -= 1

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
