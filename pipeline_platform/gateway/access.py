"""What FastAPI's endpoints depend on: the edge, and an API key with the right scope."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Response, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from pipeline_platform.gateway.admission import admit, headers_by_name, rate_headers
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.gateway.rates import Allowance
from pipeline_platform.queue.keys import Key

# Only for OpenAPI; `admit` reads the headers.
BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="An API key as a bearer token.")
HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="apiKey", description="An API key.")


def edge_of(request: Request) -> Edge:
    """The edge of the app that serves the request."""
    edge = request.app.state.edge
    assert isinstance(edge, Edge)
    return edge


class Admission:
    """A dependency that lets in keys with one of `scopes`, within their limits; asked again, it gives the same key."""

    def __init__(self, scopes: tuple[str, ...]) -> None:
        self.scopes = scopes

    async def __call__(
        self,
        request: Request,
        response: Response,
        _bearer: Annotated[object, Security(BEARER)] = None,
        _header: Annotated[object, Security(HEADER)] = None,
    ) -> Key:
        done: dict[tuple[str, ...], tuple[Key, Allowance]] = request.scope.setdefault("pipeline.admitted", {})
        if self.scopes not in done:
            peer = request.client.host if request.client else ""
            done[self.scopes] = await admit(
                edge_of(request), peer, headers_by_name(request.scope["headers"]), self.scopes
            )
        key, allowance = done[self.scopes]
        response.headers.update(rate_headers(allowance))
        return key


def scoped(*scopes: str) -> Admission:
    """The dependency for these scopes."""
    return Admission(scopes)


EdgeOf = Annotated[Edge, Depends(edge_of)]
