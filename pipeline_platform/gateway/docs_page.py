"""/openapi.json, and /docs without the internet: Swagger UI out of the package fastapi-offline instead of a CDN."""

from __future__ import annotations

import functools
import threading
from pathlib import Path

import fastapi_offline
import orjson
from fastapi import FastAPI, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

ASSETS = "/docs/assets"
OPENAPI = "/openapi.json"
# The page is one inline script around Swagger UI; nobody may frame it, lest its buttons are pressed through another's.
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
}


def add_docs(app: FastAPI) -> None:
    """Adds /docs and its assets to an app whose own docs pages are off."""
    app.mount(ASSETS, StaticFiles(directory=Path(fastapi_offline.__file__).parent / "static"), name="docs-assets")

    making = threading.Lock()

    @functools.cache
    def document() -> bytes:
        return orjson.dumps(app.openapi())

    @app.get(OPENAPI, include_in_schema=False)
    def openapi() -> Response:
        with making:  # once: it takes a good part of a second
            return Response(document(), media_type="application/json")

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=OPENAPI,
            title=f"{app.title}: API",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon.png",
        )
        page.headers.update(HEADERS)
        return page
