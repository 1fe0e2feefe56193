"""Attackers on loopback: raw connections, and web servers with BoundedHttp in a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from pipeline_platform.access.bounded_http import BoundedHttp
from pipeline_platform.local.ports import free_port


@contextlib.contextmanager
def served(app: Any, http: type[BoundedHttp], **options: Any) -> Iterator[int]:
    """The port of `app` behind `http`, in a thread."""
    port = free_port()
    options = {"ws": "none", "loop": "uvloop", "lifespan": "off", **options}
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=http,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        timeout_graceful_shutdown=2,
        **options,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until(lambda: server.started or not thread.is_alive(), 10)
    assert server.started
    try:
        yield port
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


def until(holds: Callable[[], object], seconds: float, pause: float = 0.02) -> None:
    """Waits until it holds, and fails when it does not within the time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(pause)


class Raw:
    """One raw connection, with ten seconds of patience."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        self.socket.connect(("127.0.0.1", port))
        self._buffer = b""

    def send(self, data: bytes) -> None:
        """Sends all of it; a server that hung up is no failure here."""
        with contextlib.suppress(ConnectionError):
            self.socket.sendall(data)

    def flood(self, piece: bytes, most: int) -> int:
        """Sends `piece` again and again, up to `most` bytes, and says how many the server took before it hung up."""
        sent = 0
        with contextlib.suppress(ConnectionError):
            while sent < most:
                sent += self.socket.send(piece)
        return sent

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65536)
        except ConnectionError:
            return False
        self._buffer += data
        return bool(data)

    def answer(self) -> tuple[int, bytes]:
        """Status and body of the next answer with a Content-Length; (0, b"") when the connection ended without one."""
        while b"\r\n\r\n" not in self._buffer:
            if not self._more():
                return 0, b""
        head, _, rest = self._buffer.partition(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0]) if lengths else 0
        while len(rest) < length:
            if not self._more():
                break
            rest = self._buffer.partition(b"\r\n\r\n")[2]
        self._buffer = rest[length:]
        return int(head[9:12]), rest[:length]

    def ended(self) -> bool:
        """Whether the server ends the connection; reads what comes until then."""
        while self._more():
            pass
        return True

    def close(self) -> None:
        """Ends it."""
        self.socket.close()

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def get(path: str, *headers: str, host: str = "127.0.0.1") -> bytes:
    """A GET as bytes."""
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *headers, "", ""]).encode("latin-1")


def post(path: str, body: bytes, *headers: str, length: int | None = None, host: str = "127.0.0.1") -> bytes:
    """A POST as bytes; `length` may lie."""
    head = [f"POST {path} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body) if length is None else length}"]
    return "\r\n".join([*head, *headers, "", ""]).encode("latin-1") + body
