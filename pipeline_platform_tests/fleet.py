"""More workers for a stack that is up: processes of their own on this host, or on others (network namespaces)."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit, urlunsplit

from pipeline_platform_tests.acceptance.stacks import COMMAND, Up
from pipeline_platform_tests.oracle import wait_for
from pipeline_platform_tests.other_host import Forwarder, OtherHost

# What a worker on another machine has to know; see docs/scaling.md.
URLS = {
    "DATABASE_URL": "warehouse_url",
    "PIPELINE_LOADER_DATABASE_URL": "warehouse_loader_url",
    "PIPELINE_DAGSTER_DATABASE_URL": "dagster_database_url",
}


class Fleet:
    """`pipeline-platform worker` processes beside those of `up`; each knows nothing but addresses."""

    def __init__(self, up: Up, *, namespaces: bool = False) -> None:
        self._up, self._namespaces = up, namespaces
        self._hosts: list[OtherHost] = []
        self._processes: list[subprocess.Popen[bytes]] = []
        self._forwarders: list[Forwarder] = []

    @property
    def forwarded(self) -> int:
        """How many connections came from other hosts."""
        return sum(forwarder.connections for forwarder in self._forwarders)

    @property
    def pids(self) -> set[int]:
        """The processes that it started, here and on other hosts."""
        elsewhere = (host.process for host in self._hosts)
        return {process.pid for process in (*self._processes, *elsewhere) if process is not None}

    def add(self, name: str, *, children: int = 1, queue: str = "ingest") -> None:
        """Starts a worker and waits until it takes tasks."""
        folder = self._up.folder / f"host-{name}"
        folder.mkdir()
        argv = [*COMMAND, "worker", "--workers", str(children), "--name", name, "--queue", queue]
        ready = folder / "ready"
        env = self._up.env | {
            "PIPELINE_STATE_DIR": str(folder / "state"),
            "PIPELINE_WORKER_READY_FILE": str(ready),
        }
        where = json.loads((self._up.state_dir / "connections.json").read_text())
        urls = {variable: where[field] for variable, field in URLS.items()}
        urls["REDIS_URL"] = where["redis_users"]["workers"]
        with (folder / "log").open("wb") as log:
            process = self._elsewhere(argv, env, urls, log) if self._namespaces else self._here(argv, env | urls, log)
        wait_for(f"worker {name} is ready", lambda: ready.exists() or process.poll() is not None, 90)
        assert ready.exists(), (folder / "log").read_text()

    def log(self, name: str) -> str:
        """What the worker has printed."""
        return Path(self._up.folder / f"host-{name}" / "log").read_text()

    def stop(self) -> None:
        """Ends all of them."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)
        for host in self._hosts:
            host.stop()
        for forwarder in self._forwarders:
            forwarder.close()

    def _here(self, argv: list[str], env: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        self._processes.append(subprocess.Popen(argv, env=env, stdout=log, stderr=log))
        return self._processes[-1]

    def _elsewhere(
        self, argv: list[str], env: dict[str, str], urls: dict[str, str], log: IO[bytes]
    ) -> subprocess.Popen[bytes]:
        host = OtherHost()
        self._hosts.append(host)
        process = host.prepare(argv, env, log)
        ports = {urlsplit(url).port or 0 for url in urls.values()}
        passed = {port: Forwarder(host.home, port) for port in ports}
        self._forwarders += passed.values()
        host.go({name: _moved(url, host.home, passed[urlsplit(url).port or 0].port) for name, url in urls.items()})
        return process


def _moved(url: str, host: str, port: int) -> str:
    """The URL with another host and port."""
    parts = urlsplit(url)
    login, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{login}{at}{host}:{port}"))
