"""POST /v1/streams/{stream}/events: from bytes to a durable entry and its receipt.

A plain ASGI endpoint: this is the path that has to be lean, and nothing on it needs more.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from dataclasses import dataclass

import orjson
from starlette.types import ASGIApp, Receive, Scope, Send

from pipeline_platform.core.entries import Receipt, TaggedReceipt
from pipeline_platform.core.numbers import as_json, float_in
from pipeline_platform.gateway.admission import admit, headers_by_name
from pipeline_platform.gateway.body import DisconnectedError, canonical_events, read_body, way_to_read
from pipeline_platform.gateway.contract import require_contract
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.gateway.parameters import bad_parameter, parameters_of, truth_in
from pipeline_platform.gateway.problems import ProblemError, problem_of, problem_response
from pipeline_platform.gateway.rates import Allowance
from pipeline_platform.gateway.receipts import receipt_links
from pipeline_platform.queue.keys import Key
from pipeline_platform.queue.protocol import NewEntry, QueueRefusal

INGEST = ("ingest",)
INGEST_PATH = "/v1/streams/{stream}/events"
_PATH = re.compile(r"/v1/streams/([^/]+)/events")
_IDEMPOTENCY_KEY = re.compile(rb"[\x20-\x7e]{1,200}\Z")


@dataclass(frozen=True, slots=True)
class _Options:
    strict: bool = False
    wait: float = 0.0


_NO_OPTIONS = _Options()


class IngestShortcut:
    """Takes posts of events to their endpoint, and all else to the framework, whose layers cost more than that."""

    def __init__(self, app: ASGIApp, endpoint: ASGIApp) -> None:
        self._app, self._endpoint = app, endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and (found := _PATH.fullmatch(scope["path"])):
            scope["path_params"], scope["endpoint"] = {"stream": found[1]}, self._endpoint
            await self._endpoint(scope, receive, send)
        else:
            await self._app(scope, receive, send)


class IngestEndpoint:
    """The ASGI endpoint."""

    path = INGEST_PATH

    def __init__(self, edge: Edge) -> None:
        self._edge = edge
        self._counters = {
            name: (edge.metrics.events.labels(name), edge.metrics.bytes.labels(name)) for name in edge.specs
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            status, headers, body = await self._accept(scope, receive)
        except DisconnectedError:
            return
        except Exception as error:
            problem = problem_of(error)
            if problem.status == 500:
                raise
            self._edge.metrics.refusals.labels(problem.kind).inc()
            await problem_response(problem, scope["path"])(scope, receive, send)
            return
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _accept(self, scope: Scope, receive: Receive) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        edge = self._edge
        headers = headers_by_name(scope["headers"])
        client = scope.get("client")
        stream: str = scope["path_params"]["stream"]
        peer = client[0] if client else ""
        key, allowance = await admit(edge, peer, headers, INGEST, stream=stream, path=scope["path"])
        spec = edge.spec(stream)
        await edge.tags.ready()
        options = self._options(scope["query_string"]) if scope["query_string"] else _NO_OPTIONS
        idempotency = headers.get(b"idempotency-key")
        if idempotency is not None and not _IDEMPOTENCY_KEY.match(idempotency):
            raise ProblemError("bad-header", "Idempotency-Key is 1 to 200 printable ASCII characters.")
        edge.pressure.refuse_if_full(stream)
        parser, coding = way_to_read(headers.get(b"content-type", b""), headers.get(b"content-encoding", b""))
        raw = await read_body(receive, headers.get(b"content-length", b""), edge.bounds.body_bytes)
        events = await canonical_events(raw, parser, coding, edge.bounds, edge.parsers)
        if options.strict:
            await asyncio.get_running_loop().run_in_executor(edge.parsers, require_contract, events, spec)
        item = _entry(stream, key, events.count, events.data, idempotency)
        outcome = await edge.flusher.append(item)
        if isinstance(outcome, QueueRefusal):
            raise edge.pressure.full(stream, "The queue refused the request; nothing of it was stored.")
        receipt = edge.tags.of(Receipt(stream, outcome.id), key)
        if outcome.conflict:
            raise ProblemError(
                "idempotency-conflict",
                "This Idempotency-Key was used for a request with another body. Use a new key for a new request.",
                receipt=str(receipt),
            )
        if outcome.repeated:
            edge.metrics.replays.labels(stream).inc()
        else:
            counted, sized = self._counters[stream]
            counted.inc(events.count)
            sized.inc(len(events.data))
        answer = _headers(receipt, allowance)
        if outcome.repeated:
            answer.append((b"idempotency-replayed", b"true"))
        if options.wait:
            document = await edge.outcomes.wait(receipt, options.wait, whole=key.allows("read"))
            if document is not None:
                return 200, answer, document.model_dump_json().encode()
        accepted = {
            "receipt": str(receipt),
            "stream": stream,
            "accepted": events.count,
            "links": receipt_links(receipt),
        }
        return 202, answer, orjson.dumps(accepted)

    def _options(self, query: bytes) -> _Options:
        strict, wait = False, 0.0
        for name, value in parameters_of(query, ("strict", "wait")):
            try:
                if name == "strict":
                    strict = truth_in(value)
                else:
                    wait = self._wait(value)
            except ValueError as error:
                raise bad_parameter(name, f"{name} {error}.") from None
        return _Options(strict, wait)

    def _wait(self, value: str) -> float:
        if as_json(value) is None or (wait := float_in(value)) < 0:
            raise ValueError("should be a number of seconds, 0 or more")
        return min(wait, self._edge.wait_max_seconds)


def _entry(stream: str, key: Key, count: int, data: bytes, idempotency: bytes | None) -> NewEntry:
    if idempotency is None:
        return NewEntry(stream, count, data, key.id)
    digest = hashlib.blake2b(stream.encode() + b"\n" + data, digest_size=16).hexdigest()
    scoped = f"{key.id}:{hashlib.sha256(idempotency).hexdigest()[:40]}"
    return NewEntry(stream, count, data, key.id, scoped, digest)


def _headers(receipt: TaggedReceipt, allowance: Allowance) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"location", f"/v1/receipts/{receipt}".encode()),
        (b"ratelimit-limit", b"%d" % allowance.limit),
        (b"ratelimit-remaining", b"%d" % allowance.remaining),
        (b"ratelimit-reset", b"%d" % int(allowance.reset)),
    ]
