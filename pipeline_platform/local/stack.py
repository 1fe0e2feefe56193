"""The whole platform on one machine: which services, in which order, with which environment."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline_platform.access.links import one_time_link
from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import SettingError
from pipeline_platform.local.connections import Connections
from pipeline_platform.local.databases import tune_history
from pipeline_platform.local.environment import (
    INGEST_QUEUES,
    OTHER_QUEUES,
    child_environment,
    dagster_home,
    worker_arguments,
)
from pipeline_platform.local.ports import remembered_port, require_free
from pipeline_platform.local.probes import answers_at, appears, daemon_beats, http_ok, listens
from pipeline_platform.local.processes import Service, Step
from pipeline_platform.local.secret_files import write_private
from pipeline_platform.local.servers import Database, QueueServer, database, queue_server
from pipeline_platform.local.sockets import socket_folder
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.keys import KeyStore, token_id
from pipeline_platform.settings import LOOPBACK, Settings
from pipeline_platform.warehouse.engine import connect as connect_warehouse
from pipeline_platform.warehouse.migrate import migrate

Say = Callable[[str, str], None]
CODE_SOCKET = "code.sock"


class Stack:
    """The plan of one `up`. `state_dir` is the folder that the caller holds; see `lock.hold`."""

    def __init__(self, settings: Settings, state_dir: Path, say: Say) -> None:
        self._settings, self._state_dir, self._say = settings, state_dir, say
        if settings.dagster_login == "off" and settings.host not in LOOPBACK:
            raise SettingError(
                f"PIPELINE_DAGSTER_LOGIN=off lets everybody act as an admin who reaches {settings.host}. Leave the "
                "login on, or bind to 127.0.0.1."
            )
        require_free(settings.host, settings.port, "--port")
        require_free(settings.host, settings.dagster_port, "--dagster-port")
        self._specs = load_specs(settings.streams_dir)
        self._database: Database = database(settings, state_dir)
        self._queue: QueueServer = queue_server(settings, state_dir)
        self._code_socket = socket_folder(state_dir / "run" / "code", f"{CODE_SOCKET}.lock", None) / CODE_SOCKET
        self._home = dagster_home(state_dir, settings.dagster_yaml)
        shown = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
        self._base = f"http://{shown}:{settings.port}"
        self._dagster_here = f"http://{shown}:{settings.dagster_port}"
        self._dagster = settings.dagster_url or self._dagster_here
        self._prices_port: int | None = None
        self.connections = self._connections("")

    def plan(self, ready: Step, *, demo: bool) -> Sequence[Service | Step]:
        """Everything in the order it starts; `ready` comes when all is up, before the demo's load."""
        if demo:
            self._prices_port = remembered_port(self._state_dir / "ports" / "prices")
            self.connections = self._connections("")
        services: list[Service | Step] = [
            *([self._prices(self._prices_port)] if demo and self._prices_port else []),
            *self._database.before,
            *self._queue.before,
            Step("migrations", self._migrate),
            *self._database.after,
            Step("api key", self._key),
            self._gateway(),
            self._code_server(),
            *self._workers(),
            self._daemon(),
            self._webserver(),
            Step("history", lambda: tune_history(self._database.dagster_url)),
            ready,
        ]
        if demo:
            services.append(self._demo())
        return services

    def login_link(self) -> str:
        """A link to the Dagster UI that logs in once; just the UI where the login is off."""
        if self._settings.dagster_login == "off":
            return self._dagster
        client = connect_queue(self._queue.url)
        try:
            return one_time_link(client, self._dagster, self.connections.api_key)
        finally:
            client.close()

    def _connections(self, api_key: str) -> Connections:
        given = self._settings.demo_prices_url or ""
        return Connections(
            gateway_url=self._base,
            dagster_url=self._dagster,
            warehouse_url=self._database.owner_url,
            warehouse_loader_url=self._database.loader_url,
            warehouse_readonly_url=self._database.readonly_url,
            dagster_database_url=self._database.dagster_url,
            redis_url=self._queue.url,
            api_key=api_key,
            demo_prices_url=f"http://127.0.0.1:{self._prices_port}" if self._prices_port else given,
        )

    def _environment(self) -> dict[str, str]:
        return child_environment(
            self._settings,
            self.connections,
            self._state_dir,
            PIPELINE_CODE_SOCKET=str(self._code_socket),
        )

    def _migrate(self) -> None:
        engine = connect_warehouse(self._database.owner_url)
        try:
            migrate(engine, self._specs.values(), say=lambda line: self._say("migrate", line))
        finally:
            engine.dispose()

    def _key(self) -> None:
        """The first API key: made once, kept in the state folder, made again when the queue's server lost it."""
        path = self._state_dir / "secrets" / "api_key"
        token = path.read_text().strip() if path.exists() else ""
        client = connect_queue(self._queue.url)
        try:
            keys = KeyStore(client)
            good = {key.id for key in keys.list() if key.revoked_at is None}
            if token_id(token) not in good:
                _, token = keys.create("made by up", ["admin"])
                write_private(path, token + "\n")
        finally:
            client.close()
        self.connections = self._connections(token)
        self.connections.save(self._state_dir)

    def _service(
        self,
        name: str,
        argv: Sequence[str],
        ready: Callable[[], bool],
        *,
        stop_timeout: float = 10.0,
        leaf: bool = False,
        **env: str,
    ) -> Service:
        return Service(
            name,
            [sys.executable, "-m", *argv],
            ready,
            env=self._environment() | {"PGAPPNAME": f"pipeline {name}"} | env,
            cwd=self._home,
            start_timeout=120.0,
            stop_timeout=stop_timeout,
            leaf=leaf,
        )

    def _gateway(self) -> Service:
        argv = ["pipeline_platform.gateway"]
        return self._service("gateway", argv, http_ok(f"{self._base}/healthz"), stop_timeout=15.0)

    def _code_server(self) -> Service:
        argv = ["pipeline_platform.orchestration.runtime.code_server"]
        argv += ["--module-name", "pipeline_platform.orchestration.definitions"]
        argv += ["--socket", str(self._code_socket), "--log-level", "warning"]
        argv += ["--location-name", "pipeline_platform", "--max-workers", str(16 + 2 * len(self._specs))]
        return self._service("code", argv, answers_at(self._code_socket))

    def _workers(self) -> tuple[Service, Service]:
        """Two, so that no ingest run ever waits for one of another kind; see docs/decisions/0017."""
        return (
            self._worker("worker", self._settings.workers, INGEST_QUEUES),
            self._worker("etl", self._settings.etl_workers, OTHER_QUEUES),
        )

    def _worker(self, name: str, children: int, queues: Sequence[str]) -> Service:
        ready = self._state_dir / "run" / f"{name}-ready"
        ready.unlink(missing_ok=True)
        # A run in progress may finish before the worker goes; what does not is requested again.
        return self._service(
            name,
            worker_arguments(children, f"{name}@%h", queues),
            appears(ready),
            stop_timeout=20.0,
            leaf=True,
            PIPELINE_WORKER_READY_FILE=str(ready),
        )

    def _daemon(self) -> Service:
        workspace = str(self._home / "workspace.yaml")
        argv = ["pipeline_platform.orchestration.runtime.daemon", "--workspace", workspace]
        argv += ["--cadence", str(self._settings.daemon_cadence), "--log-level", "warning"]
        if self._settings.daemon == "stock":
            argv = ["dagster._daemon", "run", "--workspace", workspace, "--log-level", "warning"]
        return self._service("daemon", argv, daemon_beats(self._database.dagster_url), leaf=True)

    def _webserver(self) -> Service:
        argv = ["pipeline_platform.orchestration.webserver", "--workspace", str(self._home / "workspace.yaml")]
        argv += ["--host", self._settings.host, "--port", str(self._settings.dagster_port)]
        return self._service("dagster", argv, http_ok(f"{self._dagster_here}/server_info"), leaf=True)

    def _prices(self, port: int) -> Service:
        """Made-up prices for the demo, so that it needs no internet."""
        argv = ["pipeline_platform.local.price_server", "--port", str(port)]
        return self._service("prices", argv, listens("127.0.0.1", port))

    def _demo(self) -> Service:
        argv = ["pipeline_platform.local.demo", "--state-dir", str(self._state_dir)]
        return self._service("demo", argv, _always, leaf=True)


def _always() -> bool:
    return True
