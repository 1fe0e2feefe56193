"""Asks one source over HTTP: bounded in time and size, within the shared budget, every failure by its kind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any, NoReturn, TypeVar

import requests
from urllib3.exceptions import HTTPError, ReadTimeoutError

from pipeline_platform import __version__
from pipeline_platform.core.budgets import Budget, Priority
from pipeline_platform.errors import (
    SourceUnavailableError,
    UnknownSymbolError,
)
from pipeline_platform.sources.failures import (
    FIRST_PAUSES,
    QUESTION_PAUSE,
    Said,
    is_error,
    is_page,
)
from pipeline_platform.sources.series import About, FailureSeries
from pipeline_platform.sources.shapes import Node

READ_MOST = 16 * 2**20  # bytes of an answer, unpacked
SAID_CHARACTERS = 200
RECONNECT_AFTER = 0.2

Query = Mapping[str, str | int]
T = TypeVar("T")


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
        says_unknown: Callable[[Said], bool] = lambda said: False,  # noqa: ARG005
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.source = source
        self.spent = 0
        self._base_url = base_url.rstrip("/")
        self._budget, self._priority = budget, priority
        self.failures = FailureSeries(source, budget)
        self._says_unknown, self._now = says_unknown, now
        self._patience, self._clock, self._sleep = patience, clock, sleep
        self._session = requests.Session()
        self._session.auth = _as_is  # proxies of the environment are used, passwords of a netrc are not
        self._session.headers.update({"User-Agent": f"pipeline-platform/{__version__}", **(headers or {})})

    def get(
        self,
        path: str,
        query: Query | None = None,
        *,
        about: About,
        weight: float = 1,
        check: Callable[[Node], None] = lambda answer: None,  # noqa: ARG005
    ) -> Node:
        """The JSON answer; numbers with a point become Decimal. `check` raises by `failures` what it finds in it."""

        def read(body: bytes) -> Node:
            try:
                value = json.loads(body, parse_float=Decimal, parse_constant=_no_number)
            except (ValueError, RecursionError):  # cut short, or the page of some proxy: it passes
                self.failures.failed(f"{self.source} answered {path} with what is not whole JSON.", about)
            if is_error(value):
                self._fail(Said(HTTPStatus.OK, body, {}), path, about)
            answer = Node(value, self.source)
            check(answer)
            return answer

        return self.ask(path, query, about=about, read=read, weight=weight, accept="application/json")

    def ask(
        self,
        path: str,
        query: Query | None,
        *,
        about: About,
        read: Callable[[bytes], T],
        weight: float = 1,
        accept: str = "*/*",
    ) -> T:
        """What `read` makes of the body of a good answer. `read` raises by `failures` when it is none after all."""
        failing = self.failures.rest(about)
        self._budget.take(weight, self._priority)
        self.spent += 1
        try:
            with self._send(path, query, accept) as answer:
                body = self._body(answer, path)
        except (requests.Timeout, ReadTimeoutError):
            raise SourceUnavailableError(f"{self.source} did not answer {path} in time.") from None
        except (requests.RequestException, HTTPError, OSError) as error:
            kind = type(error).__name__
            raise SourceUnavailableError(
                f"{self.source} broke off, or cannot be reached, at {path} ({kind})."
            ) from None
        if answer.status_code != HTTPStatus.OK or is_page(body):
            self._fail(Said(answer.status_code, body, answer.headers), path, about)
        value = read(body)
        if failing:
            self.failures.over(about)
        return value

    def close(self) -> None:
        """Closes the connections."""
        self._session.close()

    def _send(self, path: str, query: Query | None, accept: str) -> requests.Response:
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

    def _body(self, answer: requests.Response, path: str) -> bytes:
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

    def _fail(self, said: Said, path: str, about: About) -> NoReturn:
        words = f": {said.text[:SAID_CHARACTERS]}" if said.text else ""
        message = f"{self.source} answered {path} with {said.status}{words}.{_advice(said)}"
        if not said.is_page and self._says_unknown(said):
            which = about.symbol or "one of the symbols"
            raise UnknownSymbolError(f"{message} It does not know {which}: correct it in prices.yaml.", about.symbol)
        named = said.named_pause(self._now())
        if said.of_question and not named:
            self.failures.failed(message, about, first=QUESTION_PAUSE, question=True)
        self.failures.failed(message, about, first=FIRST_PAUSES.get(said.status, 0.0), named=named)


def _advice(said: Said) -> str:
    """What is worth a look when it stays so."""
    if said.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return " If this stays, check the key in prices.yaml, and whether this machine may ask."
    if 300 <= said.status < 400:
        where = said.headers.get("Location", "elsewhere")[:SAID_CHARACTERS]
        return f" It points to {where}: check base_url in prices.yaml."
    return ""


def _no_number(name: str) -> NoReturn:
    raise ValueError(name)


def _as_is(request: Any) -> Any:
    return request
