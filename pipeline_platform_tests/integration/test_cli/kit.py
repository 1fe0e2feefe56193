"""The command line in a test: run a command, and a gateway with a flaky network in front."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from typer.testing import CliRunner

from pipeline_platform.cli.main import command_line
from pipeline_platform.errors import PlatformError

_app = cache(command_line)  # a command alone, as `main` has it; the whole is a tenth of a second a time


@dataclass(frozen=True)
class Done:
    """A command that has ended; `error` is the sentence that `main` prints before it exits with 1."""

    code: int
    out: str
    err: str
    error: str

    @property
    def document(self) -> Any:
        """The JSON that the command printed."""
        return json.loads(self.out)


def run(*arguments: object, stdin: str | bytes | None = None) -> Done:
    """Runs `pipeline-platform ARGUMENTS` in this process."""
    result = CliRunner().invoke(_app(str(arguments[0])), [str(argument) for argument in arguments], input=stdin)
    error = result.exception
    if error is not None and not isinstance(error, PlatformError | SystemExit):
        raise error
    return Done(result.exit_code, result.stdout, result.stderr, str(error) if isinstance(error, PlatformError) else "")


def readings(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Telemetry events that can be told apart by their value."""
    return [{"source": f"s{n % 3}", "metric": "m", "value": float(n)} for n in range(first, first + count)]


def write_ndjson(path: Path, events: list[dict[str, Any]]) -> Path:
    """The events as a file."""
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


# What the network does with a request: forwards it; answers by itself; loses the request, or the answer to it.
Action = Callable[[int], str]


@dataclass
class Network:
    """A proxy that does to the n-th POST what `action(n)` says: pass, busy, cut-before or cut-after."""

    target: str
    action: Action = lambda _: "pass"
    url: str = ""
    keys: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, key: str) -> str:
        """Notes the request's Idempotency-Key and decides."""
        with self.lock:
            self.keys.append(key)
            return self.action(len(self.keys))


@contextlib.contextmanager
def network_before(target: str) -> Iterator[Network]:
    """A Network in front of the gateway at `target`."""
    network = Network(target)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._forward(b"")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            action = network.next(self.headers["Idempotency-Key"])
            if action == "busy":
                self._answer(503, {"Retry-After": "1"}, b'{"title": "Busy"}')
            elif action == "cut-before":
                self._cut()
            else:
                self._forward(body, cut=action == "cut-after")

        def _forward(self, body: bytes, *, cut: bool = False) -> None:
            parts = urlsplit(network.target)
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                reply = connection.getresponse()
                content = reply.read()
            finally:
                connection.close()
            if cut:
                self._cut()
            else:
                self._answer(reply.status, dict(reply.getheaders()), content)

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "date", "server"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def _cut(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    network.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield network
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
