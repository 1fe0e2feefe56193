"""The gateway as the command line uses it: one session, answers as values, refusals as PlatformErrors."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.auth import AuthBase

from pipeline_platform.core.retry_after import retry_after
from pipeline_platform.errors import PermanentError, SettingError, TransientError

CONNECT_SECONDS, READ_SECONDS = 10.0, 90.0
BACKOFF_FIRST, BACKOFF_LIMIT = 0.25, 15.0
AGAIN = frozenset({408, 425, 429})  # and every 5xx
_NETWORK = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
)


class RefusedError(PermanentError):
    """The gateway refused the request, and nothing of it was stored; `problem` is its RFC 9457 document."""

    def __init__(self, message: str, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem


@dataclass(frozen=True)
class Answer:
    """A JSON answer of 2xx."""

    document: dict[str, Any]
    headers: Mapping[str, str]


class _Bearer(AuthBase):
    """As an auth object, so that a ~/.netrc cannot put another Authorization in place of ours."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


@dataclass
class GatewayClient:
    """Asks one gateway with one API key. Not for several threads at once.

    `patience` is how many seconds a request is tried again while the gateway is away or busy; `sleep` may raise to
    end the waiting; `say` hears why it waits.
    """

    url: str
    key: str = field(repr=False)
    patience: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    say: Callable[[str], None] = lambda _: None

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingError(f"{self.url!r} is not a gateway's URL such as http://127.0.0.1:8000.")
        if not self.key.isascii() or not self.key.isprintable() or not self.key:
            raise SettingError("There is no usable API key; make one with `pipeline-platform keys create` for --key.")
        self.url = self.url.rstrip("/")
        self._session = requests.Session()
        self._session.auth = _Bearer(self.key)
        self._session.trust_env = not is_loopback(self.url)  # no proxy stands between us and ourselves

    def close(self) -> None:
        """Ends the connections."""
        self._session.close()

    def get(self, path: str) -> dict[str, Any]:
        """The JSON document at `path`."""
        return self._ask("GET", path, {}, None).document

    def download(self, path: str) -> Iterator[bytes]:
        """The body at `path` in pieces as they come, for what is too large to hold. Not tried again.

        Raises TransientError when it breaks off: what came so far is not all of it.
        """
        try:
            with self._session.get(
                self.url + path, stream=True, timeout=(CONNECT_SECONDS, READ_SECONDS), allow_redirects=False
            ) as reply:
                if reply.status_code != 200:
                    detail = _document(reply).get("detail") or f"{reply.status_code} {reply.reason}"
                    kind = TransientError if reply.status_code in AGAIN or reply.status_code >= 500 else PermanentError
                    raise kind(f"The gateway refused: {detail}")
                yield from reply.iter_content(64 * 2**10)
        except _NETWORK:
            raise TransientError(f"{self.url} broke off, or cannot be reached; nothing of it is complete.") from None

    def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Sends `body`, the same until there is an answer: the caller's Idempotency-Key makes that harmless.

        Raises RefusedError when the gateway will not have it, TransientError when the patience is at its end.
        """
        return self._ask("POST", path, headers, body)

    def _ask(self, method: str, path: str, headers: Mapping[str, str], body: bytes | None) -> Answer:
        began, failures = self.clock(), 0
        while True:
            reason, pause = self._once(method, path, headers, body)
            if isinstance(reason, Answer):
                return reason
            failures += 1
            backoff = min(BACKOFF_LIMIT, BACKOFF_FIRST * 2.0 ** min(failures - 1, 10)) * random.uniform(0.75, 1.25)
            left = began + self.patience - self.clock()
            if left <= 0 or pause > left:
                asks = f", as it asks for {pause:.0f} s more" if pause > left > 0 else ""
                raise TransientError(f"{self.url} {reason}; gave up after {self.clock() - began:.0f} s{asks}.")
            wait = min(max(backoff, pause), left)  # the last try is when the patience is at its end
            self.say(f"{reason}; asking again in {wait:.1f} s")
            self.sleep(wait)

    def _once(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[Answer | str, float]:
        """An answer, or why there is none yet and how many seconds the gateway wants to be left alone."""
        try:
            reply = self._session.request(
                method,
                self.url + path,
                data=body,
                headers=dict(headers),
                timeout=(CONNECT_SECONDS, READ_SECONDS),
                allow_redirects=False,
            )
        except _NETWORK as error:
            timed_out = isinstance(error, requests.Timeout)
            return ("does not answer in time" if timed_out else "cannot be reached"), 0.0
        except (requests.RequestException, ValueError) as error:
            raise PermanentError(f"{self.url} cannot be asked: {type(error).__name__}.") from None
        problem = _document(reply)
        if reply.status_code in AGAIN or reply.status_code >= 500:
            what = problem.get("title") or reply.reason or "busy"
            pause = retry_after(reply.headers.get("Retry-After"), datetime.now(UTC))
            return f"answered {reply.status_code} ({what})", pause or 0.0
        if 200 <= reply.status_code < 300:
            if not problem:
                raise PermanentError(f"{self.url} does not answer like a gateway; is --url right?")
            return Answer(problem, reply.headers), 0.0
        if reply.status_code < 400:
            raise PermanentError(
                f"{self.url} sends us elsewhere ({reply.status_code}); pass the final address as --url."
            )
        detail = str(problem.get("detail") or f"{reply.status_code} {reply.reason}")
        raise RefusedError(f"The gateway refused: {detail}", reply.status_code, problem)


def is_loopback(url: str) -> bool:
    """Whether the URL's host is this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _document(reply: requests.Response) -> dict[str, Any]:
    try:
        document = reply.json()
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
