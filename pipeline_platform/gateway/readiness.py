"""Whether everything works, and what does not."""

from __future__ import annotations

import sqlalchemy as sa
from pydantic import BaseModel

from pipeline_platform.errors import PlatformError, TransientError
from pipeline_platform.gateway.credentials import KeyCache
from pipeline_platform.gateway.pressure import Pressure
from pipeline_platform.warehouse.migrate import check_migrated


class Readiness(BaseModel):
    """Whether everything works, and what does not. `ingest` needs the queue and the keys only."""

    ready: bool
    ingest: bool
    reasons: list[str]


def readiness(pressure: Pressure, keys: KeyCache, engine: sa.Engine) -> Readiness:
    """Blocking: the warehouse is asked."""
    ingest = [] if pressure.fresh else ["The queue has not answered for some seconds."]
    if not keys.loaded:
        ingest.append("The API keys have not been read yet.")
    reasons = ingest + _warehouse(engine)
    return Readiness(ready=not reasons, ingest=not ingest, reasons=reasons)


def _warehouse(engine: sa.Engine) -> list[str]:
    try:
        check_migrated(engine)
    except TransientError:
        return ["The warehouse cannot be reached."]
    except PlatformError as error:
        return [str(error)]
    return []
