"""/healthz, /readyz and /metrics: open to everybody who reaches the port, and without anything secret."""

from __future__ import annotations

import asyncio
from typing import Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from pipeline_platform.gateway.access import EdgeOf
from pipeline_platform.gateway.readiness import Readiness

PATIENCE_SECONDS = 5.0
router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process lives and its event loop turns."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", summary="The process lives (no key needed)")
async def healthz() -> Alive:
    """Says nothing about the servers behind it; see /readyz."""
    return Alive()


@router.get("/readyz", summary="Everything behind it works (no key needed)", responses={503: {"model": Readiness}})
async def readyz(response: Response, edge: EdgeOf) -> Readiness:
    """200 when queue, keys and warehouse are there; 503 with what is missing otherwise. At most a second old."""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            found = await edge.readiness.read()
    except TimeoutError:
        found = Readiness(ready=False, ingest=edge.pressure.fresh, reasons=["The warehouse does not answer in time."])
    response.status_code = 200 if found.ready else 503
    return found


@router.get("/metrics", summary="Prometheus metrics (no key needed)", response_class=Response)
async def metrics(request: Request, edge: EdgeOf) -> Response:
    """As text of version 0.0.4, or as `Accept` asks: text of 1.0.0 or OpenMetrics 1.0.0. At most a second old."""
    body, content_type = await edge.pages.read(", ".join(request.headers.getlist("accept")))
    return Response(body, headers={"Content-Type": content_type, "Vary": "Accept"})
