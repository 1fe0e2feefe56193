"""What FastAPI's endpoints depend on: the edge, and an API key with the right scope."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request, Response, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from pipeline_platform.gateway.admission import admit, headers_by_name, rate_headers
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.queue.keys import Key

# Only for OpenAPI; `admit` reads the headers.
BEARER = HTTPBearer(auto_error=False, scheme_name="bearer", description="An API key as a bearer token.")
HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, scheme_name="apiKey", description="An API key.")


def edge_of(request: Request) -> Edge:
    """The edge of the app that serves the request."""
    edge = request.app.state.edge
    assert isinstance(edge, Edge)
    return edge


def scoped(*scopes: str) -> Callable[..., Awaitable[Key]]:
    """A dependency that lets in keys with one of `scopes`, within their limits."""

    async def admitted(
        request: Request,
        response: Response,
        _bearer: Annotated[object, Security(BEARER)] = None,
        _header: Annotated[object, Security(HEADER)] = None,
    ) -> Key:
        peer = request.client.host if request.client else ""
        key, allowance = await admit(edge_of(request), peer, headers_by_name(request.scope["headers"]), scopes)
        response.headers.update(rate_headers(allowance))
        return key

    return admitted


EdgeOf = Annotated[Edge, Depends(edge_of)]
