"""What FastAPI's endpoints depend on: the edge, and an API key with the right scope."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from pipeline_platform.gateway.admission import ALLOWANCE, admit, headers_by_name, too_many
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.queue.keys import Key

# Only for OpenAPI; `admit` reads the headers.
BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="An API key as a bearer token.")
HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="apiKey", description="An API key.")

_LONGEST = 10_000  # rows of a page


def edge_of(request: Request) -> Edge:
    """The edge of the app that serves the request."""
    edge = request.app.state.edge
    assert isinstance(edge, Edge)
    return edge


class Admission:
    """A dependency that lets in keys with one of `scopes`, within their limits; asked again, it gives the same key.

    A request costs `cost` tokens of the key's reads, and one more for every `rows_a_token` rows of its `limit`.
    """

    def __init__(self, scopes: tuple[str, ...], cost: float, rows_a_token: int) -> None:
        self.scopes = scopes
        self._cost = cost
        self._rows_a_token = rows_a_token

    async def __call__(
        self,
        request: Request,
        _bearer: Annotated[object, Security(BEARER)] = None,
        _header: Annotated[object, Security(HEADER)] = None,
    ) -> Key:
        done: dict[tuple[str, ...], Key] = request.scope.setdefault("pipeline.admitted", {})
        if self.scopes not in done:
            done[self.scopes] = await self._admit(request)
        return done[self.scopes]

    async def _admit(self, request: Request) -> Key:
        edge = edge_of(request)
        peer = request.client.host if request.client else ""
        key, _ = await admit(edge, peer, headers_by_name(request.scope["headers"]), self.scopes)
        allowance = edge.reads.take(key.id, self._tokens(request.query_params.get("limit", "")))
        if not allowance.allowed:
            raise too_many("API key", allowance)
        request.scope[ALLOWANCE] = allowance  # the front door tells the client
        return key

    def _tokens(self, limit: str) -> float:
        """What is no plain number is read as one later, perhaps: it costs as much as the longest page."""
        plain = limit.isascii() and limit.isdigit() and len(limit) < 9
        rows = int(limit) if plain else _LONGEST if limit else 0
        return self._cost + rows / self._rows_a_token


def scoped(*scopes: str, cost: float = 1.0, rows_a_token: int = 100) -> Admission:
    """The dependency for these scopes."""
    return Admission(scopes, cost, rows_a_token)


EdgeOf = Annotated[Edge, Depends(edge_of)]
