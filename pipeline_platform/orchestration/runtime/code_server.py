"""Dagster's code server, alone and closed: `python -m pipeline_platform.orchestration.runtime.code_server --socket ..`

Whoever reaches a code server may start runs and end it, so it listens on a Unix socket in a private folder. On another
host than the daemon it listens on TCP, and then every call has to carry a token (`code_token.py`).

It is alone: gRPC's servers share a port by default (SO_REUSEPORT), and take a socket's path from one another, so a
stale server that somebody forgot would answer with yesterday's code, and nobody would be told. This one ends with an
error where another listens, and another that comes later cannot listen.

Options are those of `dagster api grpc`; the rest of the server is Dagster's.
"""

from __future__ import annotations

import fcntl
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any, TextIO

import grpc
from dagster._cli.api import grpc_command

from pipeline_platform.orchestration.runtime.code_token import TokenCheck

TOKEN = "PIPELINE_CODE_TOKEN"
ALONE = ("grpc.so_reuseport", 0)


def alone(make: Callable[..., grpc.Server], token: str = "") -> Callable[..., grpc.Server]:
    """`grpc.server` with a server that does not share its port, and that asks for `token` when there is one."""
    checks = [TokenCheck(token)] if token else []

    @wraps(make)
    def made(*arguments: Any, options: Sequence[tuple[str, Any]] | None = None, **more: Any) -> grpc.Server:
        return make(*arguments, options=[*(options or ()), ALONE], interceptors=checks, **more)

    return made


def hold_socket(path: Path) -> TextIO:
    """Keeps the socket's path for this process while the returned file is open. OSError when another has it."""
    lock = path.with_name(f"{path.name}.lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    path.unlink(missing_ok=True)  # what a killed one left
    return lock


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT; exit code 1 and a sentence when it may not or cannot listen."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    token = os.environ.get(TOKEN, "")
    socket, port = _option(given, "--socket"), _option(given, "--port")
    if not socket and not token:
        sys.exit(
            f"A code server on TCP lets everybody in who reaches it: set {TOKEN} to a secret, here and for the daemon "
            "and the webserver, or pass --socket with a path in a private folder."
        )
    os.umask(0o077)  # the socket is its owner's
    try:
        held = hold_socket(Path(socket)) if socket else None
    except OSError as error:
        sys.exit(f"The socket {socket} is taken, perhaps by a code server that was left behind: {error.strerror}.")
    grpc.server = alone(grpc.server, "" if socket else token)  # Dagster has no setting, and asks gRPC by this name
    try:
        grpc_command.main(args=given, prog_name="code_server")
    except Exception as error:
        if "bind" not in f"{type(error).__name__} {error}".lower():
            raise
        sys.exit(
            f"Port {port} is taken, perhaps by a code server that was left behind. Find it with `ss -ltnp` and end it."
        )
    finally:
        if held:
            held.close()


def _option(given: Sequence[str], name: str) -> str:
    return next((value for flag, value in pairwise(given) if flag == name), "")


if __name__ == "__main__":
    main()
