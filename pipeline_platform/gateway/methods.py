"""HEAD for every GET, OPTIONS for every route, and a 405 that names every method of the path: for all routes here.

Plain ASGI, before the routes: none of them has to know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from re import Pattern

import anyio
from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline_platform.access.page_route import allowed, options
from pipeline_platform.gateway.problems import ProblemError, problem_response


@dataclass(frozen=True)
class Place:
    """A path, perhaps with parameters, and the methods it has."""

    path: str
    pattern: Pattern[str]
    methods: frozenset[str]


class Methods:
    """The middleware. `routes` are the app's, which are complete when the first request comes."""

    def __init__(self, app: ASGIApp, routes: Callable[[], Iterable[BaseRoute]]) -> None:
        self._app, self._routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        place = self._place(scope["path"]) if scope["type"] == "http" else None
        if place is None:
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            scope["endpoint"] = place
            await options(place.methods)(scope, receive, send)
        elif scope["method"] not in place.methods:
            scope["endpoint"] = place
            allow = allowed(place.methods)
            detail = f"Allowed here: {allow}."
            problem = ProblemError("method-not-allowed", detail, headers={"Allow": allow})
            await problem_response(problem, scope["path"])(scope, receive, send)
        elif scope["method"] == "HEAD":
            await self._head(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The answer to a GET without its body: whatever is asked of a GET is asked of it. A long body is not made."""
        begun: list[Message] = []
        scope["method"] = "GET"
        try:
            with anyio.CancelScope() as making:

                async def without_body(message: Message) -> None:
                    if message["type"] == "http.response.start":
                        begun.append(message)
                    elif message.get("more_body", False):
                        making.cancel()

                await self._app(scope, receive, without_body)
        finally:
            scope["method"] = "HEAD"  # whoever looks at the answer sees what was asked
        for message in begun:
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    def _place(self, path: str) -> Place | None:
        found = self._fixed.get(path)
        if found is None:
            found = next((place for place in self._open if place.pattern.match(path)), None)
        return found

    @cached_property
    def _places(self) -> list[Place]:
        methods: dict[str, set[str]] = {}
        patterns: dict[str, Pattern[str]] = {}
        for route in iter_route_contexts(list(self._routes())):
            assert route.path is not None
            patterns[route.path] = route.path_regex
            methods.setdefault(route.path, {"OPTIONS"}).update(route.methods or {"GET"})  # a mount is of files
        return [
            Place(path, patterns[path], frozenset(those | {"HEAD"} if "GET" in those else those))
            for path, those in methods.items()
        ]

    @cached_property
    def _fixed(self) -> dict[str, Place]:
        """Those without parameters: /dead-letters/replay is no dead letter's number."""
        return {place.path: place for place in self._places if not place.pattern.groups}

    @cached_property
    def _open(self) -> list[Place]:
        return [place for place in self._places if place.pattern.groups]
