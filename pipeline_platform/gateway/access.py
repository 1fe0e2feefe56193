"""What FastAPI's endpoints depend on: the edge, an API key with the right scope and streams, the audit."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Response, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from pipeline_platform.gateway.admission import (
    ALLOWANCE,
    actor_of,
    admit,
    headers_by_name,
    role_of,
    tell_refusal,
    too_many,
)
from pipeline_platform.gateway.credentials import AccessProblemError
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.gateway.parameters import check_parameters
from pipeline_platform.gateway.problems import problem_response
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

    Where the path names a stream, keys for other streams are refused. Where it names none, all keys for named streams
    are, unless the endpoint is `narrow`: sees to it itself that they find their own streams only. A request costs
    `cost` tokens of the key's reads, and one more for every `rows_a_token` rows of its `limit`. Parameters that the
    endpoint does not declare are refused, unless it sees to its `own_query`.
    """

    def __init__(
        self, scopes: tuple[str, ...], *, narrow: bool, cost: float, rows_a_token: int, own_query: bool
    ) -> None:
        self.scopes = scopes
        self.narrow = narrow
        self._cost = cost
        self._rows_a_token = rows_a_token
        self._own_query = own_query

    async def __call__(
        self,
        request: Request,
        _bearer: Annotated[object, Security(BEARER)] = None,
        _header: Annotated[object, Security(HEADER)] = None,
    ) -> Key:
        done: dict[tuple[object, ...], Key] = request.scope.setdefault("pipeline.admitted", {})
        asked = (self.scopes, self.narrow)
        if asked not in done:
            done[asked] = await self._admit(request)
        return done[asked]

    async def _admit(self, request: Request) -> Key:
        edge = edge_of(request)
        key, _ = await admit(
            edge,
            request.client.host if request.client else "",
            headers_by_name(request.scope["headers"]),
            self.scopes,
            stream=request.path_params.get("stream"),
            anyhow=self.narrow,
            path=request.url.path,
            session=request,
        )
        allowance = edge.reads.take(key.id, self._tokens(request.query_params.get("limit", "")))
        if not allowance.allowed:
            raise too_many("API key", allowance)
        request.scope[ALLOWANCE] = allowance  # the front door tells the client
        if not self._own_query:
            check_parameters(request)
        return key

    def _tokens(self, limit: str) -> float:
        """What is no plain number is read as one later, perhaps: it costs as much as the longest page."""
        plain = limit.isascii() and limit.isdigit() and len(limit) < 9
        rows = int(limit) if plain else _LONGEST if limit else 0
        return self._cost + rows / self._rows_a_token


def scoped(
    *scopes: str, narrow: bool = False, cost: float = 1.0, rows_a_token: int = 100, own_query: bool = False
) -> Admission:
    """The dependency for these scopes."""
    return Admission(scopes, narrow=narrow, cost=cost, rows_a_token=rows_a_token, own_query=own_query)


class Noting:
    """Tells the audit what the request's caller does."""

    def __init__(self, edge: Edge, address: str) -> None:
        self._edge, self._address = edge, address

    def __call__(self, event: str, key: Key, *, outcome: str = "ok", **detail: object) -> None:
        """`detail` holds what it was about, never a payload."""
        self._edge.audit.record(
            event, actor=actor_of(key), role=role_of(key), outcome=outcome, address=self._address, detail=detail
        )


def noting(request: Request) -> Noting:
    """The audit for this request."""
    return Noting(edge_of(request), _address(request))


async def refuse(request: Request, error: Exception) -> Response:
    """Answers a 401 or 403, whoever found it, and tells the audit."""
    assert isinstance(error, AccessProblemError)
    tell_refusal(edge_of(request), error, _address(request), request.url.path)
    return problem_response(error, request.url.path)


def _address(request: Request) -> str:
    peer = request.client.host if request.client else ""
    forwarded = headers_by_name(request.scope["headers"]).get(b"x-forwarded-for", b"")
    return edge_of(request).addresses.of(peer, forwarded)


EdgeOf = Annotated[Edge, Depends(edge_of)]
Note = Annotated[Noting, Depends(noting)]
