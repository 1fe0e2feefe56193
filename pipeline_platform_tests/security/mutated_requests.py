"""Mutated requests, heads and bodies, against a web server of ours: the gateway, or the Dagster UI.

    python -m pipeline_platform_tests.security.mutations http://127.0.0.1:3000 /graphql /server_info \\
        --header "Cookie: pp_session=..." --body '{"query": "{ version }"}' --count 50000

Whatever comes, there is no 5xx, and the server goes on answering. Only addresses of this machine are attacked.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from urllib.parse import urlsplit

PATIENCE = 0.3  # a request that was cut in half is not answered: then the next one
LIVE_EVERY, LIVE_SECONDS = 100, 10.0
NASTY = [
    b"\x00", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\r\n ", b" ", b"\t", b":", b"%", b"%00", b"%2e%2e/", b"%ff", b"../",
    b"//", b"?", b"#", b"&", b"=", b";", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"{", b"[" * 100, b'{"a":' * 100, b'"',
    b"\\", b"\\u0000", b"\\ud800", b"NaN", b"1e999", b"-1", b"9" * 40, b"null", b"true", b"A" * 5000, b"0x10", b"1_0",
]  # fmt: skip
HEADERS = [
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: xchunked", b"Transfer-Encoding: gzip, chunked",
    b"Content-Length: 0", b"Content-Length: 5", b"Content-Length: -1", b"Content-Length: 99999999999999999999",
    b"Content-Length : 3", b"Content-Encoding: gzip", b"Content-Encoding: zstd", b"Content-Encoding: br",
    b"Content-Type: application/json; charset=utf-7", b"Content-Type: multipart/form-data; boundary=x",
    b"Content-Type: application/x-ndjson", b"Content-Type: \xff", b"Connection: Upgrade", b"Connection: close",
    b"Upgrade: websocket", b"Upgrade: h2c", b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    b"Expect: 100-continue", b"Expect: nothing", b"Host: evil.example", b"Host:", b"Origin: null", b"Range: bytes=9-1",
    b"Authorization: Bearer", b"Authorization: Basic \xff", b"X-API-Key: " + b"k" * 300, b"Cookie: a=b; =; ;;;",
    b"X-Forwarded-For: " + b"1.1.1.1," * 50, b"Idempotency-Key: \x01", b"If-None-Match: *", b"Accept: \xff/*",
    b" folded: yes", b"no colon", b": no name", b"x: " + b"y" * 9000, b"\x00: z",
]  # fmt: skip
METHODS = [b"GET", b"POST", b"PUT", b"PATCH", b"DELETE", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"QUERY", b"G\x00T"]


@dataclass(frozen=True)
class Seed:
    """A request that is well-formed."""

    method: str
    path: str
    headers: tuple[str, ...] = ()
    body: bytes = b""

    def lines(self, host: str) -> list[bytes]:
        """Its head."""
        length = [f"Content-Length: {len(self.body)}"] if self.body else []
        head = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}", *self.headers, *length]
        return [line.encode("latin-1") for line in head]


@dataclass
class Report:
    """What came of an attack: answers by status (0: none), the 5xx with their requests, the slowest sign of life."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[tuple[int, bytes]] = field(default_factory=list)
    slowest: float = 0.0


def mutated(dice: random.Random, seed: Seed, host: str) -> list[bytes]:
    """A request with some of it changed, as the pieces in which it is sent."""
    lines, body = seed.lines(host), bytearray(seed.body)
    for _ in range(dice.choice((0, 1, 1, 1, 2, 4))):
        match dice.randrange(8):
            case 0:
                lines.insert(dice.randint(1, len(lines)), dice.choice(HEADERS))
            case 1:
                lines.insert(1, dice.choice(lines[1:] or [b"x: y"]))
            case 2 if len(lines) > 1:
                del lines[dice.randrange(1, len(lines))]
            case 3:
                _, _, rest = lines[0].partition(b" ")
                lines[0] = dice.choice(METHODS) + b" " + rest
            case 4:
                place = dice.randrange(len(lines))
                lines[place] = bytes(_damaged(dice, bytearray(lines[place])))
            case 5:
                lines[0] = lines[0].replace(b" HTTP/1.1", dice.choice(NASTY) + b" HTTP/1.1")
            case _:
                body = _damaged(dice, body)
    if dice.random() < 0.3:  # as often as not, the length is right again, so that the body is read
        lines = [line for line in lines if not line.lower().startswith(b"content-length")]
        lines.append(b"Content-Length: %d" % len(body))
    end = b"\n" if dice.random() < 0.03 else b"\r\n"
    whole = end.join([*lines, b"", b""]) + bytes(body)
    match dice.randrange(10):
        case 0:
            whole = whole[: dice.randrange(len(whole) + 1)]
        case 1:
            whole += whole
        case 2:
            cut = dice.randrange(len(whole) + 1)
            return [whole[:cut], whole[cut:]]
    return [whole]


def _damaged(dice: random.Random, data: bytearray) -> bytearray:
    at = dice.randrange(len(data) + 1)
    match dice.randrange(4):
        case 0:
            data[at:at] = dice.choice(NASTY)
        case 1:
            del data[at : at + dice.randint(1, 20)]
        case 2:
            data[at : at + 1] = dice.randbytes(1)
        case _:
            data[at:at] = data[max(0, at - dice.randint(1, 60)) : at]
    return data


async def attack(base: str, seeds: Sequence[Seed], live: str, count: int, number: int, *, at_once: int = 16) -> Report:
    """Sends `count` mutations of `seeds` to the server at `base`; `live` is a path that answers everybody."""
    parts = urlsplit(base)
    host, port = parts.hostname or "", parts.port or 80
    if not (host == "localhost" or ip_address(host).is_loopback):
        raise SystemExit("Only servers of this machine are attacked.")
    dice, report = random.Random(number), Report()
    well = b"\r\n".join([*Seed("GET", live).lines(f"{host}:{port}"), b"", b""])
    requests = [mutated(dice, dice.choice(seeds), f"{host}:{port}") for _ in range(count)]

    async def work(start: int) -> None:
        for place in range(start, count, at_once):
            pieces = requests[place]
            status = await _answer(host, port, pieces, PATIENCE)
            report.statuses[status] += 1
            if status >= 500:
                report.failures.append((status, b"".join(pieces)))
            if place % LIVE_EVERY == 0:
                began = time.perf_counter()
                alive = await _answer(host, port, [well], LIVE_SECONDS)
                report.slowest = max(report.slowest, time.perf_counter() - began)
                if alive == 0:
                    raise AssertionError(f"the server hangs after {b''.join(pieces)[:300]!r}")

    await asyncio.gather(*(work(start) for start in range(at_once)))
    return report


async def _answer(host: str, port: int, pieces: Sequence[bytes], patience: float) -> int:
    """The status of the first answer; 0 when there is none in time."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        async with asyncio.timeout(patience):
            for number, piece in enumerate(pieces):
                if number:
                    await asyncio.sleep(0.001)
                writer.write(piece)
                await writer.drain()
            head = await reader.readexactly(12)
            while head[9:12] == b"100":
                await reader.readuntil(b"\r\n\r\n")
                head = await reader.readexactly(12)
            return int(head[9:12])
    except (TimeoutError, ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
        return 0
    finally:
        # With a reset: fifty thousand connections in TIME_WAIT would be all ports there are.
        peer: socket.socket = writer.get_extra_info("socket")
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


def main() -> None:
    """The attack as a command: for servers that somebody else has started."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("base")
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--body", action="append", default=[])
    parser.add_argument("--live", default="")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 10**9)
    options = parser.parse_args()
    json = (*options.header, "Content-Type: application/json")
    seeds = [Seed("GET", path, tuple(options.header)) for path in options.paths]
    seeds += [Seed("POST", path, json, body.encode()) for path in options.paths for body in options.body]
    print(f"seed {options.seed}")
    report = asyncio.run(attack(options.base, seeds, options.live or options.paths[0], options.count, options.seed))
    print(f"{dict(sorted(report.statuses.items()))}, slowest sign of life {report.slowest * 1000:.0f} ms")
    for status, request in report.failures[:10]:
        print(status, request[:500])
    sys.exit(bool(report.failures))


if __name__ == "__main__":
    main()
