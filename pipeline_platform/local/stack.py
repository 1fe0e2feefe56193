"""The whole platform on one machine: which services, in which order, with which environment."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline_platform.access.links import one_time_link
from pipeline_platform.core.streams import load_specs
from pipeline_platform.errors import SettingError
from pipeline_platform.local.accounts import EDGE_CANDIDATES, Account, fresh_folder, python_files, service_account
from pipeline_platform.local.api_keys import kept_key
from pipeline_platform.local.connections import Connections
from pipeline_platform.local.databases import tune_history
from pipeline_platform.local.demo_prices import backfill_history
from pipeline_platform.local.environment import (
    EDGE,
    INGEST_QUEUES,
    OTHER_QUEUES,
    child_environment,
    dagster_home,
    worker_arguments,
)
from pipeline_platform.local.ports import remembered_port, require_free
from pipeline_platform.local.probes import answers_at, appears, daemon_beats, http_ok, listens
from pipeline_platform.local.processes import Service, Step
from pipeline_platform.local.rotation import finish_rotation, rotate_secrets
from pipeline_platform.local.servers import Database, QueueServer, database, queue_server
from pipeline_platform.local.sockets import socket_folder
from pipeline_platform.queue.connection import connect as connect_queue
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
        rotate_secrets(state_dir)
        self._database: Database = database(settings, state_dir)
        self._queue: QueueServer = queue_server(settings, state_dir)
        self._account, self._edge_account = self._choose_accounts()
        self._home = dagster_home(state_dir, settings.dagster_yaml)
        # What services themselves write, such as sockets: nobody else enters it.
        self._run_dir = fresh_folder(state_dir / "run" / "services", self._account)
        self._code_socket = socket_folder(self._run_dir / "code", f"{CODE_SOCKET}.lock", self._account) / CODE_SOCKET
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
            Step("passwords", self._forget_passwords),
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
            services += [self._demo(), Step("demo prices", self._backfill_prices)]
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
            warehouse_readonly_url=self._database.analyst_url,
            dagster_database_url=self._database.dagster_url,
            redis_url=self._queue.url,
            api_key=api_key,
            demo_prices_url=f"http://127.0.0.1:{self._prices_port}" if self._prices_port else given,
            warehouse_reader_url=self._database.reader_url,
            dagster_reader_url=self._database.dagster_reader_url,
            redis_users=self._queue.users,
        )

    def _choose_accounts(self) -> tuple[Account | None, Account | None]:
        """Whom our services run as, and those that face the network; says so when root has to run them itself."""
        settings = self._settings
        own = [settings.streams_dir, settings.alerts_file, settings.prices_file]
        needed = [*python_files(), self._state_dir, *(path.resolve() for path in own if path)]
        account, why = service_account(needed, [settings.port, settings.dagster_port])
        edge, why_edge = service_account(needed, candidates=EDGE_CANDIDATES)
        if why or why_edge:
            self._say("up", f"WARNING: every service runs as root, because {why or why_edge}.")
            return None, None
        return account, edge

    def _environment(self, service: str) -> dict[str, str]:
        home = {"HOME": str(self._home)} if self._account else {}
        return child_environment(
            service,
            self._settings,
            self.connections,
            self._state_dir,
            PIPELINE_CODE_SOCKET=str(self._code_socket),
            **home,
        )

    def _migrate(self) -> None:
        engine = connect_warehouse(self._database.owner_url)
        try:
            migrate(engine, self._specs.values(), say=lambda line: self._say("migrate", line))
        finally:
            engine.dispose()

    def _forget_passwords(self) -> None:
        """Those that Dagster kept before; see local/rotation.py."""
        urls = (self._database.owner_url, self._database.loader_url, self._database.dagster_url, self._queue.url)
        if found := finish_rotation(self._state_dir, self._database.dagster_url, urls):
            rows = ", ".join(f"{count} of {table}" for table, count in found.items())
            self._say("up", f"Dagster's database held passwords: overwritten in rows: {rows}. They are new since.")

    def _key(self) -> None:
        """The first API key: made once, kept in the state folder, made again when the queue's server lost it."""
        token = kept_key(self._queue.url, self._state_dir / "secrets" / "api_key", "made by up", ["admin"])
        self.connections = self._connections(token)
        self.connections.save(self._state_dir)

    def _backfill_prices(self) -> None:
        """In the background, here: it asks the warehouse what is missing, and the demo's load has no login there."""
        threading.Thread(
            target=backfill_history,
            args=(self._settings, self.connections, lambda line: self._say("demo", str(line))),
            daemon=True,
        ).start()

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
            account=self._edge_account if name in EDGE else self._account,
            env=self._environment(name) | {"PGAPPNAME": f"pipeline {name}"} | env,
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
        ready = self._run_dir / f"{name}-ready"
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
        service = self._service("demo", ["pipeline_platform.local.demo"], _always, leaf=True)

        def env() -> dict[str, str]:
            path = self._state_dir / "secrets" / "demo_key"
            token = kept_key(self._queue.url, path, "demo", ["ingest", "read"])
            return self._environment("demo") | {"PIPELINE_API_KEY": token}

        return replace(service, env=env)


def _always() -> bool:
    return True
