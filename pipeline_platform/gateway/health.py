"""/healthz, /readyz and /metrics: open to everybody who reaches the port, and without anything secret."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel

from pipeline_platform.errors import PlatformError, TransientError
from pipeline_platform.gateway.access import EdgeOf
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.warehouse.migrate import check_migrated

router = APIRouter(tags=["health"])


class Alive(BaseModel):
    """The process lives and its event loop turns."""

    status: Literal["ok"] = "ok"


class Readiness(BaseModel):
    """Whether everything works, and what does not. `ingest` needs the queue and the keys only."""

    ready: bool
    ingest: bool
    reasons: list[str]


@router.get("/healthz", summary="The process lives (no key needed)")
async def healthz() -> Alive:
    """Says nothing about the servers behind it; see /readyz."""
    return Alive()


@router.get("/readyz", summary="Everything behind it works (no key needed)", responses={503: {"model": Readiness}})
def readyz(response: Response, edge: EdgeOf) -> Readiness:
    """200 when queue, keys and warehouse are there; 503 with what is missing otherwise."""
    ingest = [] if edge.pressure.fresh else ["The queue has not answered for some seconds."]
    if not edge.keys.loaded:
        ingest.append("The API keys have not been read yet.")
    reasons = ingest + _warehouse(edge)
    response.status_code = 503 if reasons else 200
    return Readiness(ready=not reasons, ingest=not ingest, reasons=reasons)


def _warehouse(edge: Edge) -> list[str]:
    try:
        check_migrated(edge.engine)
    except TransientError:
        return ["The warehouse cannot be reached."]
    except PlatformError as error:
        return [str(error)]
    return []


@router.get("/metrics", summary="Prometheus metrics (no key needed)", response_class=Response)
def metrics(edge: EdgeOf) -> Response:
    """The names are in `gateway/metrics.py`."""
    edge.gauges.refresh()
    return Response(generate_latest(edge.metrics.registry), media_type=CONTENT_TYPE_LATEST)
