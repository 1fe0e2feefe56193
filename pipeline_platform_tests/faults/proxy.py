"""A TCP proxy that fails as networks do: it resets after the server has answered and before the client hears of it, it
delays, and it holds a connection open that nothing goes through any more.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

CHUNK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of no time: close() sends RST instead of FIN


@dataclass(frozen=True)
class Weather:
    """What befalls an answer of the server. `reset` and `freeze` are its chances; `delay` is in seconds.

    Only answers that hold one of `marks` are reset or frozen, where marks are given.
    """

    reset: float = 0.0
    freeze: float = 0.0
    delay: float = 0.0
    marks: tuple[bytes, ...] = ()


CALM = Weather()


class Proxy:
    """Listens on a port of its own and passes on to `host:port`. `weather` may be changed at any time."""

    def __init__(self, host: str, port: int, rng: random.Random) -> None:
        self._target, self._rng = (host, port), rng
        self.weather = CALM
        self.resets = self.frozen = 0
        self._server = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.getsockname()[1])

    def close(self) -> None:
        """Ends it and what goes through it."""
        self._server.close()
        for each in list(self._open):
            _reset(each)

    def thaw(self) -> None:
        """Resets the connections that are held open: in the end every network notices."""
        self.weather = CALM
        for each in list(self._open):
            _reset(each)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
                server.settimeout(None)
            except OSError:
                _reset(client)
                continue
            self._open |= {client, server}
            stuck = threading.Event()
            self._spawn(client, server, lambda _data: True)
            self._spawn(server, client, partial(self._let_through, stuck))

    def _spawn(self, source: socket.socket, sink: socket.socket, may: Callable[[bytes], bool]) -> None:
        threading.Thread(target=self._pump, args=(source, sink, may), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, may: Callable[[bytes], bool]) -> None:
        try:
            while data := source.recv(CHUNK):
                if not may(data):
                    break
                sink.sendall(data)
            else:
                with contextlib.suppress(OSError):
                    sink.shutdown(socket.SHUT_WR)
                return
        except OSError:
            pass
        for each in (source, sink):
            _reset(each)
            self._open.discard(each)

    def _let_through(self, stuck: threading.Event, data: bytes) -> bool:
        """Whether an answer reaches the client; False resets both sides. A frozen connection swallows it instead."""
        weather = self.weather
        if weather.delay:
            time.sleep(weather.delay)
        if not weather.marks or any(mark in data for mark in weather.marks):
            dice = self._rng.random()
            if dice < weather.reset:
                self.resets += 1
                return False
            if dice < weather.reset + weather.freeze:
                self.frozen += 1
                stuck.wait(3600)
        return True


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)  # wakes whoever reads from it; says nothing to the other side
    sock.close()
