"""Runs `pipeline-platform up` as a person does: a process of its own, free ports, a folder of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import requests

from pipeline_platform.local.ports import free_port

COMMAND = [str(Path(sys.executable).parent / "pipeline-platform")]
BACKFILLS = "{ partitionBackfillsOrError { ... on PartitionBackfills { results { id status } } } }"
CLEAN = ("DATABASE_URL", "REDIS_URL", "DAGSTER_HOME", "PYTHONWARNINGS")


class Up:
    """One `up`. Its state folder outlives it until `remove`."""

    def __init__(self, *options: str, env: dict[str, str] | None = None, command: Sequence[str] = COMMAND) -> None:
        self.command = list(command)
        self.folder = Path(tempfile.mkdtemp(prefix="pipeline-up-"))
        self.folder.chmod(0o755)
        self.state_dir = self.folder / "state"
        self.port, self.dagster_port = free_port(), free_port()
        self.options = options
        self.env = {k: v for k, v in os.environ.items() if k not in CLEAN and not k.startswith("PIPELINE_")} | (
            env or {}
        )
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """Everything that `up` has printed."""
        return (self.folder / "log").read_text(errors="replace")

    def start(self, patience: float = 120.0) -> Up:
        """Starts it and waits until it says that it is up."""
        arguments = ["up", "--state-dir", str(self.state_dir), "--port", str(self.port)]
        arguments += ["--dagster-port", str(self.dagster_port), *self.options]
        already = len(self.log) if (self.folder / "log").exists() else 0
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([*self.command, *arguments], stdout=log, stderr=log, env=self.env)
        until = time.monotonic() + patience
        while "Ctrl-C stops everything" not in self.log[already:]:
            if self.process.poll() is not None or time.monotonic() > until:
                raise AssertionError(f"`up` did not come up:\n{self.log[-4000:]}")
            time.sleep(0.2)
        return self

    def run(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs another command on the same state folder."""
        return subprocess.run(
            [*self.command, *arguments, "--state-dir", str(self.state_dir)],
            capture_output=True,
            text=True,
            env=self.env,
            check=check,
            timeout=120,
        )

    def status(self) -> dict[str, Any]:
        """`status --json --secrets`, healthy or not."""
        found: dict[str, Any] = json.loads(self.run("status", "--json", "--secrets", check=False).stdout)
        return found

    @property
    def dagster_database_url(self) -> str:
        """Dagster's own database, as its owner: `status` does not show it."""
        return str(json.loads((self.state_dir / "connections.json").read_text())["dagster_database_url"])

    def pid(self, service: str) -> int:
        """The process of a service."""
        return next(int(row["pid"]) for row in self.status()["services"] if row["name"] == service)

    def dagster_get(self, path: str) -> requests.Response:
        """A page of the Dagster UI, asked for with the first API key."""
        return requests.get(f"http://127.0.0.1:{self.dagster_port}{path}", headers=self._bearer(), timeout=60)

    def graphql_bytes(self, query: str, **variables: Any) -> bytes:
        """The Dagster UI's answer to a query, as it comes."""
        answer = requests.post(
            f"http://127.0.0.1:{self.dagster_port}/graphql",
            json={"query": query, "variables": variables},
            headers=self._bearer(),
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        assert "errors" not in answer.json(), answer.text
        return answer.content

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        """The data of that answer."""
        found: dict[str, Any] = json.loads(self.graphql_bytes(query, **variables))["data"]
        return found

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {json.loads((self.state_dir / 'connections.json').read_text())['api_key']}"}

    def backfills(self) -> list[dict[str, str]]:
        """Id and status of Dagster's backfills, the newest first."""
        found: list[dict[str, str]] = self.graphql(BACKFILLS)["partitionBackfillsOrError"]["results"]
        return found

    def interrupt(self, patience: float = 90.0) -> int:
        """Ctrl-C; returns the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(patience)

    def kill(self) -> None:
        """SIGKILL of the parent alone."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def orphans(self) -> list[str]:
        """Processes that still mention the state folder."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                environment = (entry / "environ").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if command and (str(self.state_dir) in command or f"PIPELINE_STATE_DIR={self.state_dir}" in environment):
                found.append(f"{entry.name}: {command[:120]}")
        return found

    def end(self) -> None:
        """Stops what runs; the folder stays."""
        if self.process is not None and self.process.poll() is None:
            self.interrupt()

    def remove(self) -> None:
        """Stops what runs and removes the folder."""
        self.end()
        shutil.rmtree(self.folder, ignore_errors=True)
