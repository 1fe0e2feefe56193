"""`python -m pipeline_platform.orchestration.webserver`: the Dagster UI behind our login."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence

import uvicorn
from dagster import DagsterInstance
from dagster._core.workspace.load_target import WorkspaceFileTarget
from dagster_webserver.version import __version__

from pipeline_platform.access.audit import Audit, Auditor
from pipeline_platform.access.audit_log import PrintedAudit
from pipeline_platform.access.bounded_http import BoundedHttp
from pipeline_platform.access.building import build_doorkeeper
from pipeline_platform.access.doorkeeper import Doorkeeper
from pipeline_platform.access.open_files import raise_open_files
from pipeline_platform.doors import access_config
from pipeline_platform.errors import SettingError
from pipeline_platform.orchestration.runtime.code_token import present_token
from pipeline_platform.orchestration.webserver.open_door import OpenDoor
from pipeline_platform.orchestration.webserver.permissions import RoleProcess
from pipeline_platform.orchestration.webserver.server import SecuredWebserver
from pipeline_platform.settings import LOOPBACK, Settings, require
from pipeline_platform.warehouse.engine import connect as connect_warehouse

STATEMENT_TIMEOUT_MS, POOL_RECYCLE_SECONDS, POOL_OVERFLOW = 15_000, 3_600, 20  # Dagster's own defaults
WEBSOCKET_BYTES = 2**20


def build_audit(settings: Settings) -> Auditor:
    """Where logins and mutations are told: the warehouse, and marked lines for `up`'s audit.log."""
    url = require(settings.loader_database_url or settings.database_url, "PIPELINE_LOADER_DATABASE_URL")
    engine = connect_warehouse(url, pool_size=1, application="pipeline-webserver audit")
    return Auditor(engine, PrintedAudit())


def build_door(settings: Settings, audit: Audit, host: str, port: int) -> Doorkeeper:
    """Who says who somebody is: by login, or, where it is switched off, that everybody is an admin."""
    config = access_config(settings, public_url=settings.dagster_url, host=host, port=port)
    if settings.dagster_login == "on":
        return build_doorkeeper(config, audit)
    if host not in LOOPBACK:
        raise SettingError(f"PIPELINE_DAGSTER_LOGIN=off is for loopback; {host} is open to others. Leave the login on.")
    return build_doorkeeper(config, audit, kind=OpenDoor)


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves DAGSTER_HOME's instance until SIGTERM or SIGINT."""
    parser = argparse.ArgumentParser(description="Serve the Dagster UI behind a login.")
    parser.add_argument("-w", "--workspace", required=True, metavar="FILE", help="workspace.yaml")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    settings = Settings.load()
    raise_open_files()
    audit = build_audit(settings)
    door = build_door(settings, audit, given.host, given.port)
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
                loop="uvloop",
                http=BoundedHttp.bounded(
                    connections=settings.connections_per_address, unbounded=settings.trusted_proxies
                ),
                log_level="error",  # a warning is a line for a request that somebody else wrote
                access_log=False,
                proxy_headers=False,
                server_header=False,
                limit_concurrency=settings.connections_max,
                ws_max_size=WEBSOCKET_BYTES,
                timeout_graceful_shutdown=5,
            )
    audit.close()
    os._exit(0)  # a plain end would wait for threads that wait for the code server


if __name__ == "__main__":
    main()
