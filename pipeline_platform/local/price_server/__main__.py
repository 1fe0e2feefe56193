"""The entry of the price server's process: `python -m pipeline_platform.local.price_server --port 8010`."""

from __future__ import annotations

import argparse
import signal
import threading

from pipeline_platform.local.price_server.server import PriceServer
from pipeline_platform.local.price_server.truth import Truth


def main() -> None:
    """Serves until it is told to end."""
    parser = argparse.ArgumentParser(prog="pipeline_platform.local.price_server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address to bind to")
    parser.add_argument("--port", type=int, default=8010, help="0 takes a free one")
    parser.add_argument("--seed", type=int, default=20, help="the same seed makes the same prices")
    parser.add_argument("--no-limits", action="store_true", help="without the vendors' rate limits")
    options = parser.parse_args()
    try:
        server = PriceServer(Truth(options.seed), host=options.host, port=options.port, limits=not options.no_limits)
    except OSError as error:
        raise SystemExit(
            f"The price server cannot use port {options.port}: {error.strerror}. Choose another."
        ) from None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=server.stop).start())
    print(f"Made-up prices at {server.url}", flush=True)
    server.serve()


if __name__ == "__main__":
    main()
