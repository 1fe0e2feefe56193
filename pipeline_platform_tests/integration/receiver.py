"""A receiver of webhooks on this machine: answers as told, and keeps what it was sent."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

# Of hooks.test, for tests only, valid from 2020 to 2120: both parts prove nothing to anybody.
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBZDCCAQqgAwIBAgIBATAKBggqhkjOPQQDAjAVMRMwEQYDVQQDDApob29rcy50
ZXN0MCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAVMRMwEQYDVQQD
DApob29rcy50ZXN0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEHeX/8+0y3q7o
ggBvt4BLyjvvoij0w8/+m1OhzfBJO/X8mYQtE08KDlNhMQEVntp+6hl5X6tFoUZj
MczGEuhnIaNJMEcwFQYDVR0RBA4wDIIKaG9va3MudGVzdDAPBgNVHRMBAf8EBTAD
AQH/MB0GA1UdDgQWBBSSrxKFX+nqTq7gdsleUq9agLbfajAKBggqhkjOPQQDAgNI
ADBFAiA4ihR3OiH5T2QM6pl7OT++Lh9e4AQ8lT4SZPYiOa03kQIhAOdW5x5R/cO9
3RlBAI0J9b6a/duLD4OBIgFtYEI7km+G
-----END CERTIFICATE-----
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg0cnBAWHzFlyaAjCN
RadhYzv20g2FZy9z8D1qGl4sq9ahRANCAAQd5f/z7TLeruiCAG+3gEvKO++iKPTD
z/6bU6HN8Ek79fyZhC0TTwoOU2ExARWe2n7qGXlfq0WhRmMxzMYS6Gch
-----END PRIVATE KEY-----
"""


@dataclass(frozen=True)
class Reply:
    """What the receiver answers. `before` runs when the message has arrived and the answer has not left."""

    status: int = 204
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[], object] = lambda: None


@dataclass
class Receiver:
    """The receiver: `reply` is the answer to everything until it is changed; `got` what came."""

    url: str = ""
    port: int = 0
    reply: Reply = Reply()
    got: list[dict[str, Any]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)


@contextlib.contextmanager
def receiving(certificate: Path | None = None) -> Iterator[Receiver]:
    """A receiver at a free port of 127.0.0.1; with a certificate, over TLS."""
    receiver = Receiver()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.got.append(message)
            receiver.paths.append(self.path)
            receiver.hosts.append(self.headers["Host"])
            reply = receiver.reply
            reply.before()
            with contextlib.suppress(OSError):
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.status != 204:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

        def handle_error(self, *_: object) -> None:
            """A client that will not have our certificate is not an error of the test."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        certificate.write_text(CERTIFICATE)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    receiver.port = server.server_address[1]
    receiver.url = f"http{'s' if certificate else ''}://127.0.0.1:{receiver.port}/api/webhooks/1/secret-token"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
