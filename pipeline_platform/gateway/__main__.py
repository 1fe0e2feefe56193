"""`python -m pipeline_platform.gateway`: the gateway under uvicorn, with the options that it needs."""

from __future__ import annotations

import uvicorn

from pipeline_platform.access.bounded_http import BoundedHttp
from pipeline_platform.access.open_files import raise_open_files
from pipeline_platform.settings import Settings


def main() -> None:
    """Serves until SIGINT or SIGTERM, then finishes what it has accepted."""
    settings = Settings.load()
    raise_open_files()
    uvicorn.run(
        "pipeline_platform.gateway.app:create_app",
        factory=True,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=BoundedHttp.bounded(connections=settings.connections_per_address, unbounded=settings.trusted_proxies),
        ws="none",
        access_log=False,
        log_level="error",  # a warning is a line for a request that somebody else wrote; they are counted instead
        limit_concurrency=settings.connections_max,
        # Uvicorn would believe X-Forwarded-For from 127.0.0.1; whom to believe is PIPELINE_TRUSTED_PROXIES' to say.
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )


if __name__ == "__main__":
    main()
