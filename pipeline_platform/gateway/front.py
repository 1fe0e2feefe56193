"""The front door: what is looked at before anything else of a request, and how often the same client may knock.

Plain ASGI: a refusal here costs a hundredth of what the answer would.
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline_platform.access.addresses import ClientAddresses
from pipeline_platform.gateway.admission import ALLOWANCE, rate_headers
from pipeline_platform.gateway.buckets import Buckets
from pipeline_platform.gateway.hosts import AllowedHosts
from pipeline_platform.gateway.problems import ProblemError, problem_response, seconds

# Of these a proxy may read the first and we the last, or the other way round.
_ONCE = frozenset({b"host", b"authorization", b"x-api-key", b"content-type", b"content-encoding", b"idempotency-key"})
_PROBES = frozenset({"/healthz", "/readyz"})
_REFUSED = frozenset({401, 403, 404, 405, 421, 429})
SLOWED_SECONDS = 1.0
PROBE_SECONDS = 0.5
_SLEEPERS = 1000


class FrontDoor:
    """The middleware.

    `opened` are the buckets, by address, of what needs no key. `probed` are those of health probes, which are never
    refused: whoever asks very often is answered later. `refused` are those of refusals, which come later too when
    there are many: a flood of them is then as slow as its connections are few.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: AllowedHosts,
        addresses: ClientAddresses,
        opened: Buckets,
        probed: Buckets,
        refused: Buckets,
    ) -> None:
        self._app = app
        self._hosts = hosts
        self._addresses = addresses
        self._opened = opened
        self._probed = probed
        self._refused = refused
        self._sleepers = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                if message["status"] in _REFUSED:
                    if not self._refused.take(self._address(scope)).allowed:
                        await self._sleep(SLOWED_SECONDS)
                elif (allowance := scope.get(ALLOWANCE)) is not None:
                    left = [(name.encode(), value.encode()) for name, value in rate_headers(allowance).items()]
                    message["headers"] = [*message["headers"], *left]
            await send(message)

        path: str = scope["path"]
        try:
            self._look(scope, path)
            if path in _PROBES:
                if not self._probed.take(self._address(scope)).allowed:
                    await self._sleep(PROBE_SECONDS)
            elif not path.startswith("/v1/") or scope["method"] == "OPTIONS":
                self._open(scope)
        except ProblemError as problem:
            await problem_response(problem, path)(scope, receive, answer)
            return
        await self._app(scope, receive, answer)

    def _look(self, scope: Scope, path: str) -> None:
        given = [header for header in scope["headers"] if header[0] in _ONCE]
        once = dict(given)
        if len(once) != len(given):
            names = [name for name, _ in given]
            twice = next(name for name in once if names.count(name) > 1)  # of six names at most
            raise ProblemError("bad-header", f"{twice.decode()} may be given once.")
        host: bytes = once.get(b"host", b"")
        if path == "/healthz":
            return
        if not host and scope["http_version"] != "1.0":
            raise ProblemError("bad-header", "Host is missing.")
        if host and not self._hosts.allow(host):
            raise ProblemError(
                "misdirected", "The gateway has another name; PIPELINE_ALLOWED_HOSTS lists names that lead here."
            )

    def _open(self, scope: Scope) -> None:
        allowance = self._opened.take(self._address(scope))
        if not allowance.allowed:
            raise ProblemError(
                "rate-limited",
                "This address asks too often for what needs no key; wait for the seconds in Retry-After.",
                headers={**rate_headers(allowance), "Retry-After": seconds(allowance.reset)},
            )

    def _address(self, scope: Scope) -> str:
        client = scope.get("client")
        forwarded = b",".join(value for name, value in scope["headers"] if name == b"x-forwarded-for")
        return self._addresses.of(client[0] if client else "", forwarded)

    async def _sleep(self, pause: float) -> None:
        if self._sleepers >= _SLEEPERS:
            return
        self._sleepers += 1
        try:
            await asyncio.sleep(pause)
        finally:
            self._sleepers -= 1
