"""Asks one source over HTTP: bounded in time and size, within the shared budget, every failure by its kind."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NoReturn

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from pipeline_platform import __version__
from pipeline_platform.core.budgets import Budget, Priority
from pipeline_platform.core.failures import FailureKind, of_http_status
from pipeline_platform.errors import SourceRefusedError, SourceUnavailableError
from pipeline_platform.sources.shapes import Node

READ_MOST = 16 * 2**20  # bytes of an answer, unpacked
SAID_CHARACTERS = 200
# Pauses, in seconds, when a source that throttles us does not say for how long.
PAUSES: dict[int, float] = {HTTPStatus.TOO_MANY_REQUESTS: 10.0, HTTPStatus.IM_A_TEAPOT: 120.0}
LONGEST_PAUSE = 4 * 86_400.0  # Binance bans for three days at most
RECONNECT_AFTER = 0.2

Query = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds: to connect, for each read, and for a whole body."""

    connect: float = 5.0
    read: float = 15.0
    whole: float = 45.0


PATIENT = Patience()


class HttpClient:
    """One source's door. Not for several threads at once.

    It does not repeat what failed: that is decided by who asked. Only a connection that could not be made, or that was
    closed without an answer (an old one, kept alive too long), is tried a second time at once.
    """

    def __init__(
        self,
        source: str,
        base_url: str,
        budget: Budget,
        priority: Priority,
        *,
        headers: Mapping[str, str] | None = None,
        patience: Patience = PATIENT,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.source = source
        self.spent = 0
        self._base_url = base_url.rstrip("/")
        self._budget, self._priority = budget, priority
        self._patience, self._clock, self._sleep = patience, clock, sleep
        self._session = requests.Session()
        self._session.auth = _as_is  # proxies of the environment are used, passwords of a netrc are not
        self._session.headers.update({"User-Agent": f"pipeline-platform/{__version__}", **(headers or {})})

    def get(self, path: str, query: Query | None = None, *, weight: float = 1) -> Node:
        """The JSON answer; numbers with a point become Decimal."""
        body = self.get_bytes(path, query, weight=weight, accept="application/json")
        try:
            value = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
        except (ValueError, RecursionError):  # cut short, or the page of some proxy: it passes
            raise SourceUnavailableError(f"{self.source} answered {path} with what is not whole JSON.") from None
        return Node(value, self.source)

    def get_bytes(self, path: str, query: Query | None = None, *, weight: float = 1, accept: str = "*/*") -> bytes:
        """The body of a successful answer."""
        self._budget.take(weight, self._priority)
        self.spent += 1
        try:
            with self._ask(path, query, accept) as answer:
                body = self._read(answer, path)
        except (requests.Timeout, ReadTimeoutError):
            raise SourceUnavailableError(f"{self.source} did not answer {path} in time.") from None
        except (requests.RequestException, HTTPError, OSError) as error:
            kind = type(error).__name__
            raise SourceUnavailableError(
                f"{self.source} broke off, or cannot be reached, at {path} ({kind})."
            ) from None
        if answer.status_code != HTTPStatus.OK:
            self._fail(answer, body, path)
        return body

    def pause(self, seconds: float | None, message: str) -> NoReturn:
        """Makes everybody leave the source alone for a while, and says so to the asker."""
        seconds = PAUSES[HTTPStatus.TOO_MANY_REQUESTS] if seconds is None else seconds
        self._budget.pause(seconds)
        raise SourceUnavailableError(f"{message} Nobody asks it for {math.ceil(seconds)} s.", retry_after=seconds)

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()

    def _ask(self, path: str, query: Query | None, accept: str) -> requests.Response:
        def ask() -> requests.Response:
            return self._session.get(
                f"{self._base_url}{path}",
                params=query,
                headers={"Accept": accept},
                timeout=(self._patience.connect, self._patience.read),
                allow_redirects=False,
                stream=True,
            )

        try:
            return ask()
        except requests.Timeout:
            raise
        except requests.ConnectionError:
            self._sleep(RECONNECT_AFTER)
            return ask()

    def _read(self, answer: requests.Response, path: str) -> bytes:
        """The body, unless it is too long or comes too slowly. A body shorter than announced is an HTTPError."""
        deadline = self._clock() + self._patience.whole
        body = bytearray()
        while chunk := answer.raw.read1(65_536, decode_content=True):
            body += chunk
            if len(body) > READ_MOST:
                raise SourceUnavailableError(f"{self.source} answered {path} with more than {READ_MOST} bytes.")
            if self._clock() > deadline:
                raise SourceUnavailableError(f"{self.source} did not finish answering {path} in time.")
        return bytes(body)

    def _fail(self, answer: requests.Response, body: bytes, path: str) -> NoReturn:
        status = answer.status_code
        message = f"{self.source} answered {path} with {status}{_said(body)}."
        if of_http_status(status) is FailureKind.PERMANENT:
            raise SourceRefusedError(f"{message} Check the symbol, the key and base_url in prices.yaml.", status=status)
        seconds = retry_after(answer.headers.get("Retry-After"), datetime.now(UTC))
        if seconds is None:
            seconds = PAUSES.get(status)
        if seconds is None:
            raise SourceUnavailableError(message)
        self.pause(seconds, message)


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds to wait by a Retry-After header, which is a number or a date; None for anything else."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = parsedate_to_datetime(value)
        except ValueError:
            return None
        seconds = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(seconds, 0.0), LONGEST_PAUSE) if math.isfinite(seconds) else None


def _said(body: bytes) -> str:
    """What a source gives as its reason, fit for one line of a log."""
    text = " ".join(body[:1000].decode("utf-8", "replace").split())
    text = "".join(sign for sign in text if sign.isprintable())[:SAID_CHARACTERS]
    return f": {text}" if text else ""


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _as_is(request: Any) -> Any:
    return request
