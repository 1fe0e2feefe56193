"""One path of ours with all its methods, and how the methods of a path are told."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope

Handler = Callable[[Request], Awaitable[Response]]


class PageRoute(Route):
    """Answers for its path whatever the method: HEAD as GET, OPTIONS with what there is, all else with a 405.

    Without it a path's other methods would be another route's: the Dagster UI has a page for every path.
    """

    def __init__(self, path: str, **handlers: Handler) -> None:
        """`handlers` by method."""
        self._handlers = handlers
        super().__init__(path, self._answer, methods=[*handlers, "OPTIONS"])

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL else match), found

    async def _answer(self, request: Request) -> Response:
        if request.method == "OPTIONS":
            return options(self.methods or ())
        return await self._handlers["GET" if request.method == "HEAD" else request.method](request)


def options(methods: Iterable[str]) -> Response:
    """What OPTIONS is told: the methods. Nothing about other sites, so a browser lets none of them ask."""
    return Response(status_code=204, headers={"Allow": allowed(methods)})


def allowed(methods: Iterable[str]) -> str:
    """The value of Allow."""
    return ", ".join(sorted(methods))
