"""The gateway's app: `uvicorn --factory pipeline_platform.gateway.app:create_app`.

Run it with `python -m pipeline_platform.gateway`, which sets uvicorn's options as they have to be.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.routing import Route

from pipeline_platform import __version__
from pipeline_platform.access.audit_log import AuditSink, PrintedAudit
from pipeline_platform.core.streams import StreamSpec, load_specs
from pipeline_platform.gateway import (
    aggregates,
    alerts,
    assets,
    audit,
    dead_letters,
    health,
    letter_changes,
    lookup,
    replays,
    stats,
)
from pipeline_platform.gateway.access import refuse
from pipeline_platform.gateway.buckets import Buckets
from pipeline_platform.gateway.credentials import AccessProblemError
from pipeline_platform.gateway.docs_page import add_docs
from pipeline_platform.gateway.edge import Edge, make_edge
from pipeline_platform.gateway.front import FrontDoor
from pipeline_platform.gateway.hosts import AllowedHosts
from pipeline_platform.gateway.ingest import INGEST_PATH, IngestEndpoint, IngestShortcut
from pipeline_platform.gateway.logins import login_routes
from pipeline_platform.gateway.methods import Methods
from pipeline_platform.gateway.observe import Observe
from pipeline_platform.gateway.openapi import DESCRIPTION, describe
from pipeline_platform.gateway.problems import install_problem_handlers
from pipeline_platform.settings import Settings


def create_app() -> FastAPI:
    """The app from the environment's settings; the servers need not be up yet."""
    settings = Settings.load()
    return build_app(settings, load_specs(settings.streams_dir), PrintedAudit())


def build_app(settings: Settings, specs: Mapping[str, StreamSpec], lines: AuditSink | None = None) -> FastAPI:
    """The app for these settings and streams. `lines` takes those of the audit, whose table has them, too."""
    edge = make_edge(settings, specs, lines)
    ingest = IngestEndpoint(edge)

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with edge.running():
            yield

    app: FastAPI = _Gateway(
        edge,
        title="Pipeline Platform",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        middleware=[
            Middleware(Observe, metrics=edge.metrics),
            Middleware(FrontDoor, addresses=edge.addresses, **_door(settings)),
            Middleware(IngestShortcut, endpoint=ingest),
            Middleware(Methods, routes=lambda: app.routes),
        ],
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
    )
    app.state.edge = edge
    app.router.routes[:0] = [Route(INGEST_PATH, ingest, methods=["POST"]), *login_routes(edge.door)]
    for part in (lookup, aggregates, assets, dead_letters, letter_changes, replays, alerts, audit, stats, health):
        app.include_router(part.router)
    add_docs(app)
    install_problem_handlers(app)
    app.add_exception_handler(AccessProblemError, refuse)
    return app


def _door(settings: Settings) -> dict[str, Any]:
    """What the front door goes by."""
    here = [settings.host, urlsplit(settings.gateway_link).hostname or "", socket.gethostname()]
    here += [urlsplit(url).hostname or "" for url in settings.public_urls]
    opened, probes, refusals = settings.rate_limit_open, settings.rate_limit_probes, settings.rate_limit_refusals
    return {
        "hosts": AllowedHosts([*here, *settings.allowed_hosts]),
        "opened": Buckets(opened, opened * settings.rate_limit_reads_burst),
        "probed": Buckets(probes, probes * settings.rate_limit_reads_burst),
        "refused": Buckets(refusals, refusals * settings.rate_limit_reads_burst),
    }


class _Gateway(FastAPI):
    """FastAPI with the plain ingest route in its OpenAPI document."""

    def __init__(self, edge: Edge, **options: Any) -> None:
        super().__init__(**options)
        self._edge = edge

    def openapi(self) -> dict[str, Any]:
        """The document, with the ingest endpoint and a schema for the events of every stream."""
        if not self.openapi_schema:
            self.openapi_schema = describe(super().openapi(), self._edge.specs, INGEST_PATH)
        return self.openapi_schema
