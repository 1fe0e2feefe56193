"""Ports: one that is free and stays free, or a clear word about who has to move.

Ports stay below 32768, where Linux starts to hand out ports to outgoing connections: a remembered port above it can be
taken by any program's next connection.
"""

from __future__ import annotations

import errno
import random
import socket
from pathlib import Path

from pipeline_platform.errors import SettingError

LOWEST = 20_000


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now."""
    return _listen_error(host, port) is None


def free_port(preferred: int | None = None, host: str = "127.0.0.1", below: int = 32_768) -> int:
    """`preferred` when it is free, else a random free port in [20000, `below`)."""
    if preferred is not None and is_free(host, preferred):
        return preferred
    for port in random.sample(range(LOWEST, below), 500):
        if is_free(host, port):
            return port
    raise SettingError(f"No free port below {below} on {host}; stop some servers first.")


def remembered_port(note: Path, host: str = "127.0.0.1") -> int:
    """The port noted in the file when it is still free, else a new one, which is noted."""
    try:
        preferred: int | None = int(note.read_text())
    except (FileNotFoundError, ValueError):
        preferred = None
    port = free_port(preferred, host)
    if port != preferred:
        note.write_text(f"{port}\n")
    return port


def require_free(host: str, port: int, flag: str) -> None:
    """SettingError that names the flag to pass when nothing could listen on the port."""
    error = _listen_error(host, port)
    if error is None:
        return
    if error.errno == errno.EADDRINUSE:
        raise SettingError(f"Port {port} on {host} is taken by another program; pass {flag} with a free one.")
    if error.errno == errno.EACCES:
        raise SettingError(f"Port {port} on {host} needs root; pass {flag} with a port above 1023.")
    raise SettingError(f"Port {port} on {host} cannot be used ({error.strerror or error}); pass --host with another.")


def _listen_error(host: str, port: int) -> OSError | None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            # As servers do: a port whose old connections linger in TIME_WAIT is free, one with a listener is not.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None
