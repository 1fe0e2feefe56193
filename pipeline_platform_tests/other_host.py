"""Another host, as far as a program can tell: a network namespace of its own, joined to this one by a veth pair.

The namespace belongs to the program that runs in it and goes with it, and so do both ends of the pair: there is nothing
to clean up. Needs root (CAP_NET_ADMIN and CAP_SYS_ADMIN) and no other tool. Our servers listen on loopback, which the
other host does not have, so `Forwarder` stands at the address that it can reach.

`python -m pipeline_platform_tests.other_host ADDRESS PROGRAM...` is the other host's side.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO

from pyroute2 import IPRoute

CLONE_NEWNET = 0x40000000
DEVICE = "to-home"
_numbers = itertools.count(1)


def allowed() -> bool:
    """Whether this process may make network namespaces. Asked in a process of its own."""
    script = f"import ctypes; raise SystemExit(ctypes.CDLL(None).unshare({CLONE_NEWNET}) != 0)"
    return sys.platform == "linux" and subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


class OtherHost:
    """One program on a host of its own. `home` is this host's address there."""

    def __init__(self) -> None:
        number = next(_numbers)
        net = f"10.{200 + os.getpid() % 50}.{os.getpid() // 50 % 250}"
        self.home, self._there = f"{net}.{4 * number + 1}", f"{net}.{4 * number + 2}"
        self._device = f"pp{os.getpid() % 1_000_000}-{number}"
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self, argv: Sequence[str], env: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        """Makes the namespace, with the program waiting in it until `go`. Afterwards `home` can be bound to."""
        module = [sys.executable, "-m", "pipeline_platform_tests.other_host", self._there]
        self.process = subprocess.Popen(
            [*module, *argv], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == b"apart\n", "the namespace could not be made; this needs root"
        peer = {"ifname": DEVICE, "net_ns_pid": self.process.pid}
        with IPRoute() as here:
            here.link("add", ifname=self._device, kind="veth", peer=peer)
            (index,) = here.link_lookup(ifname=self._device)
            here.addr("add", index=index, address=self.home, prefixlen=30)
            here.link("set", index=index, state="up")
        return self.process

    def go(self, env: Mapping[str, str]) -> None:
        """Lets the program start, with what it has to know beside its environment."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(dict(env)).encode() + b"\n")
        self.process.stdin.close()

    def stop(self) -> None:
        """Ends the program; its namespace and the pair go with it."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()


class Forwarder:
    """Passes connections to (host, a free port) on to a port of this host's loopback, in a thread of its own."""

    def __init__(self, host: str, to_port: int) -> None:
        self._host, self._to = host, to_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"forward-{to_port}", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._accept, host, 0), self._loop).result(
            10
        )
        self.port: int = self._server.sockets[0].getsockname()[1]
        self.connections = 0

    def close(self) -> None:
        """Ends all connections."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.CancelledError):
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            await asyncio.gather(_copy(reader, back), _copy(there, writer))


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    try:
        while data := await source.read(256 * 1024):
            target.write(data)
            await target.drain()
    except OSError:
        pass
    finally:
        target.close()


def main(arguments: Sequence[str]) -> None:
    """Leaves this host's network, waits for the pair, and becomes the program."""
    address, *argv = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        sys.exit(f"No network namespace: {errno.errorcode[code]} ({os.strerror(code)}).")
    sys.stdout.write("apart\n")
    sys.stdout.flush()
    told = sys.stdin.readline()
    if not told:
        sys.exit("The home host has ended.")
    with IPRoute() as here:
        for name, own in (("lo", None), (DEVICE, address)):
            (index,) = here.link_lookup(ifname=name)
            if own:
                here.addr("add", index=index, address=own, prefixlen=30)
            here.link("set", index=index, state="up")
    os.execve(argv[0], argv, os.environ | json.loads(told))


if __name__ == "__main__":
    main(sys.argv[1:])
