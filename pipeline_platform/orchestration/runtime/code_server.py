"""Dagster's code server, alone on its port: `python -m pipeline_platform.orchestration.runtime.code_server --port ...`.

gRPC's servers share a port by default (SO_REUSEPORT): the kernel spreads connections over all of them, so a stale
server that somebody forgot answers every other question with yesterday's code, and nobody is told. This one takes the
port for itself: it ends with an error where another listens, and another that comes later cannot listen.

Options are those of `dagster api grpc`; the rest of the server is Dagster's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import grpc
from dagster._cli.api import grpc_command

ALONE = ("grpc.so_reuseport", 0)


def alone(make: Callable[..., grpc.Server]) -> Callable[..., grpc.Server]:
    """`grpc.server` with a server that does not share its port."""

    @wraps(make)
    def made(*arguments: Any, options: Sequence[tuple[str, Any]] | None = None, **more: Any) -> grpc.Server:
        return make(*arguments, options=[*(options or ()), ALONE], **more)

    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves until SIGTERM or SIGINT; exit code 1 and a sentence when the port is taken."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    grpc.server = alone(grpc.server)  # Dagster has no setting for it, and asks gRPC by this name
    try:
        grpc_command.main(args=given, prog_name="code_server")
    except Exception as error:
        if "bind" not in f"{type(error).__name__} {error}".lower():
            raise
        port = given[given.index("--port") + 1] if "--port" in given else "?"
        sys.exit(
            f"Port {port} is taken, perhaps by a code server that was left behind. Find it with `ss -ltnp` and end it."
        )


if __name__ == "__main__":
    main()
