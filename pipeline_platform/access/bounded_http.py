"""HTTP under uvicorn with bounds that neither uvicorn nor its parser has: on heads, silence, and connections.

A client that sends a head without end, or nothing at all, or reads nothing, costs a connection for some seconds and
no more. WebSockets leave these bounds with their upgrade; only the count of connections keeps them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any, ClassVar, Self

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from pipeline_platform.access.connection_counts import ConnectionCounts

HEAD_BYTES = 32 * 2**10  # request line and headers
HEAD_SECONDS = 10.0
BODY_SECONDS = 120.0  # for servers that set no bound of their own, and bodies that nobody reads
STALL_SECONDS = 30.0  # a client has to read STALL_BYTES of what waits for it within these
STALL_BYTES = 16 * 2**10
CONNECTIONS = 200  # of an address
PIPELINED = 32  # requests of a connection that wait behind another
# A segment is up to 256 KiB and may end one request and begin another: heads are given to the parser in such pieces,
# so that a head is counted to within one of them.
PIECE = 4 * 2**10

_TOO_LARGE = b"431 Request Header Fields Too Large"
_TOO_LATE = b"408 Request Timeout"
_TOO_MANY = b"429 Too Many Requests"
# Uvicorn would log a line for each bad request: whoever sends many pushes the log's past out of it.
_log = logging.getLogger("uvicorn.error.bounded")
_log.setLevel(logging.ERROR)


class BoundedHttp(HttpToolsProtocol):
    """Uvicorn's protocol with bounds, as `uvicorn.run(..., http=BoundedHttp)`.

    `refused` counts what was refused by kind; it belongs to the process.
    """

    refused: ClassVar[Counter[str]] = Counter()
    head_bytes: ClassVar[int] = HEAD_BYTES
    head_seconds: ClassVar[float] = HEAD_SECONDS
    body_seconds: ClassVar[float] = BODY_SECONDS
    stall_seconds: ClassVar[float] = STALL_SECONDS
    counts: ClassVar[ConnectionCounts] = ConnectionCounts(CONNECTIONS)

    @classmethod
    def bounded(
        cls,
        *,
        connections: int = CONNECTIONS,
        unbounded: Iterable[str] = (),
        head_seconds: float = HEAD_SECONDS,
        body_seconds: float = BODY_SECONDS,
        stall_seconds: float = STALL_SECONDS,
    ) -> type[Self]:
        """The same with other bounds; `unbounded` networks, such as proxies, may open any number of connections."""
        bounds = {
            "counts": ConnectionCounts(connections, unbounded),
            "head_seconds": head_seconds,
            "body_seconds": body_seconds,
            "stall_seconds": stall_seconds,
        }
        return type(cls.__name__, (cls,), bounds)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.logger = _log
        self._in_body = False
        self._body_left = 0  # of the body that is being read, as far as its head says
        self._message_ended = False
        self._head = 0  # bytes since the last message's end
        self._deaf = False  # what else comes is not read: the connection ends with the answers that are due
        self._upgraded = False
        self._timer: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._unread = 0
        self._served = False
        self._running: RequestResponseCycle | None = None
        self._counted: str | None = None

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._counted = self.counts.enter(self.client[0] if self.client else "")
        if self._counted is None:
            self._refuse("connections", _TOO_MANY)
            return
        self._start_timer(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self.resume_writing()
        self._unset_keepalive_if_required()
        if self._counted is not None:
            self.counts.leave(self._counted)
        self._abandon()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _abandon(self) -> None:
        """Lets the request that is being answered know that nobody listens; uvicorn tells the newest one only.

        Otherwise its answer is written to a closed connection, which is an exception, and a page of the log.
        """
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    # What comes

    def data_received(self, data: bytes) -> None:
        if len(data) <= PIECE:
            if self._reads():
                self._feed(data)
        else:
            view = memoryview(data)
            while view and self._reads():
                size = max(PIECE, self._body_left if self._in_body else 0)
                self._feed(view[:size])
                view = view[size:]
        if self._reads():
            self._watch()

    def _reads(self) -> bool:
        return not (self._deaf or self._upgraded or self.transport.is_closing())

    def _feed(self, piece: bytes | memoryview) -> None:
        self._message_ended = False
        between = not self._in_body
        super().data_received(piece)  # type: ignore[arg-type]  # the parser takes any buffer
        if between and not self._in_body and not self._message_ended:
            self._head += len(piece)
            if self._head > self.head_bytes:
                self._refuse_head()
        if len(self.pipeline) > PIPELINED:
            self.refused["pipelined"] += 1
            self._abandon()
            self.transport.close()

    def _watch(self) -> None:
        """Sees to it that some timer runs: for the rest of a body, of a head, or for the next request."""
        if self._in_body:
            self._start_timer(self.body_seconds)
        elif not self._message_ended:
            self._start_timer(self.head_seconds)
        elif not self._answering() and self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._message_ended = False

    def on_headers_complete(self) -> None:
        self._stop_timer()
        self._in_body, self._served, self._head = True, True, 0
        for name, value in self.headers:
            if name == b"content-length" and value.isdigit():
                self._body_left = int(value[:18])
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_left = max(0, self._body_left - len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop_timer()
        self._in_body, self._body_left, self._message_ended = False, 0, True
        super().on_message_complete()

    # Upgrades

    def handle_websocket_upgrade(self) -> None:
        self._upgraded = True
        self._stop_timer()
        self.resume_writing()
        counted, self._counted = self._counted, None
        super().handle_websocket_upgrade()
        protocol = self.transport.get_protocol()
        ended = protocol.connection_lost

        def lost(exc: Exception | None) -> None:
            if counted is not None:
                self.counts.leave(counted)
            ended(exc)

        # It is the WebSocket's connection now; its end is still an end of ours.
        setattr(protocol, "connection_lost", lost)  # noqa: B010 - assigning to a method is what mypy forbids

    def _unsupported_upgrade_warning(self) -> None:
        """The parser reads nothing behind an upgrade that is not made: the answer is the connection's last."""
        self.refused["upgrade"] += 1
        self._last_answer()

    # What is sent

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing() and self.transport.get_write_buffer_size():
            self._watch_reader()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_reader()

    def _watch_reader(self) -> None:
        if self._stall is None:
            self._unread = self.transport.get_write_buffer_size()
            self._stall = self.loop.call_later(self.stall_seconds, self._check_reader)

    def resume_writing(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        super().resume_writing()

    def _check_reader(self) -> None:
        unread = self.transport.get_write_buffer_size()
        if unread > self._unread - STALL_BYTES:
            self.refused["unread"] += 1
            self._abandon()
            self.transport.abort()
            return
        self._unread = unread
        self._stall = self.loop.call_later(self.stall_seconds, self._check_reader)

    # Refusals

    def send_400_response(self, msg: str) -> None:
        self.refused["malformed"] += 1
        if not self._answering() or (self._in_body and not self.cycle.response_started):
            super().send_400_response(msg)
        elif self._in_body:
            self._abandon()
            self.transport.abort()
        else:
            self._last_answer()  # to what came before: this one would be taken for it

    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _start_timer(self, seconds: float) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(seconds, self._late)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        if not self._in_body and self._answering():
            self._start_timer(self.head_seconds)  # the answer before may take longer than this head
        elif self._in_body and self._answering() and self.cycle.response_started:
            self.refused["timeout"] += 1
            self._abandon()
            self.transport.abort()
        elif (self._in_body and not self._answering()) or not (self._served or self._head):
            self.refused["timeout"] += 1  # it was answered, or has asked for nothing
            self.transport.close()
        else:
            self._refuse("timeout", _TOO_LATE)

    def _refuse_head(self) -> None:
        if self._answering():
            self.refused["head-too-large"] += 1
            self._last_answer()
        else:
            self._refuse("head-too-large", _TOO_LARGE)

    def _last_answer(self) -> None:
        """Reads no more, and ends the connection with the answer that is due."""
        self._deaf = True
        self._stop_timer()
        if self._answering():
            self.cycle.keep_alive = False
        else:
            self.transport.close()

    def _refuse(self, kind: str, status: bytes) -> None:
        self._deaf = True
        self._stop_timer()
        self.refused[kind] += 1
        if not self.transport.is_closing():
            lines = b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n"
            if status is _TOO_MANY:
                lines += b"retry-after: 10\r\n"
            self.transport.write(lines + b"\r\n")
            self.transport.close()
