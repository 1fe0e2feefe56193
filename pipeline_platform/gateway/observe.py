"""Counts and times every request, and sets the headers that every answer has. Outermost, plain ASGI."""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline_platform.gateway.metrics import Metrics, method_label

SAFE = [(b"x-content-type-options", b"nosniff"), (b"cache-control", b"no-store"), (b"x-frame-options", b"DENY")]


class Observe:
    """The middleware. Routes are known after the router has found them; what it does not find is `other`."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        self._requests: dict[tuple[str, str, int], Any] = {}
        self._durations: dict[str, Any] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *SAFE]
                self._note(scope, message["status"], time.perf_counter() - started)
            await send(message)

        await self._app(scope, receive, answer)

    def _note(self, scope: Scope, status: int, took: float) -> None:
        # FastAPI leaves its route in the scope, Starlette only the endpoint.
        route = getattr(scope.get("route") or scope.get("endpoint"), "path", "other")
        label = (route, method_label(scope["method"]), status)
        counter = self._requests.get(label)
        if counter is None:
            counter = self._requests[label] = self._metrics.requests.labels(*label)
            self._durations.setdefault(route, self._metrics.duration.labels(route))
        counter.inc()
        self._durations[route].observe(took)
