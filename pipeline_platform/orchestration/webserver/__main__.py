"""`python -m pipeline_platform.orchestration.webserver`: the Dagster UI behind our login."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping, Sequence

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.version import __version__

from pipeline_platform.access.building import build_doorkeeper
from pipeline_platform.access.doorkeeper import Doorkeeper
from pipeline_platform.doors import access_config
from pipeline_platform.errors import SettingError
from pipeline_platform.orchestration.runtime.code_token import present_token
from pipeline_platform.orchestration.webserver.open_door import OpenDoor
from pipeline_platform.orchestration.webserver.permissions import RoleProcess
from pipeline_platform.orchestration.webserver.server import SecuredWebserver
from pipeline_platform.settings import LOOPBACK, Settings

STATEMENT_TIMEOUT_MS, POOL_RECYCLE_SECONDS, POOL_OVERFLOW = 15_000, 3_600, 20  # Dagster's own defaults
LIMIT_CONCURRENCY = 1_000
WEBSOCKET_BYTES = 2**20
_log = logging.getLogger("pipeline_platform.webserver")


def build_door(settings: Settings, host: str, port: int) -> Doorkeeper:
    """Who says who somebody is: by login, or, where it is switched off, that everybody is an admin."""
    config = access_config(settings, public_url=settings.dagster_url, host=host, port=port)
    if settings.dagster_login == "on":
        return build_doorkeeper(config, _record)
    if host not in LOOPBACK:
        raise SettingError(f"PIPELINE_DAGSTER_LOGIN=off is for loopback; {host} is open to others. Leave the login on.")
    return build_doorkeeper(config, _record, kind=OpenDoor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves DAGSTER_HOME's instance until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Serve the Dagster UI behind a login.")
    parser.add_argument("-w", "--workspace", required=True, metavar="FILE", help="workspace.yaml")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    _log.setLevel(logging.INFO)
    settings = Settings.load()
    door = build_door(settings, given.host, given.port)
    if settings.code_token:
        present_token(settings.code_token)
    with DagsterInstance.get() as instance:
        instance.optimize_for_webserver(STATEMENT_TIMEOUT_MS, POOL_RECYCLE_SECONDS, POOL_OVERFLOW)
        with RoleProcess(instance, WorkspaceFileTarget([given.workspace]), version=__version__) as process:
            app = SecuredWebserver(process, door, badge=settings.dagster_login == "on").create_asgi_app()
            uvicorn.run(
                app,
                host=given.host,
                port=given.port,
                log_level="warning",
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=LIMIT_CONCURRENCY,
                ws_max_size=WEBSOCKET_BYTES,
                timeout_graceful_shutdown=5,
            )
    os._exit(0)  # a plain end would wait for threads that wait for the code server


def _record(
    event: str,
    *,
    actor: str,
    outcome: str = "ok",
    address: str = "",
    detail: Mapping[str, object] | None = None,
) -> None:
    _log.info("audit %s %s by %s from %s %s", event, outcome, actor, address, dict(detail or {}))


if __name__ == "__main__":
    main()
