"""GET /v1/stats."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from pipeline_platform.gateway.access import EdgeOf, scoped
from pipeline_platform.gateway.openapi import PROBLEMS
from pipeline_platform.gateway.stats_board import Stats

router = APIRouter(prefix="/v1", tags=["stats"], dependencies=[Depends(scoped("read"))], responses=PROBLEMS)


@router.get("/stats", summary="Totals, rates, backlog, age and latency")
def read_stats(edge: EdgeOf) -> Stats:
    """Of each stream and of all together; figures are at most a second old."""
    return edge.stats.read()
