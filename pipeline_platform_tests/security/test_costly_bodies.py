"""Bodies that cost the gateway more than they are worth: what they cost grows with their size, and no faster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest

from pipeline_platform.gateway import access, admission, dead_letters, ndjson
from pipeline_platform.gateway import body as body_module
from pipeline_platform.gateway.body import CAREFUL_INLINE_BYTES, INLINE_BYTES, MEDIA_TYPES, canonical_events
from pipeline_platform.gateway.json_checks import MOST_FIELDS, without_repeats
from pipeline_platform.gateway.ndjson import Bounds
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, Client, Pipeline, until
from pipeline_platform_tests.security.edge_kit import Raw, get, post

BOUNDS = Bounds(8 * 2**20, 64 * 2**10, 50_000, 8)
EVENTS = "/v1/streams/telemetry/events"
UNUSUAL = {
    "escape": b'{"a":"\\n"}',
    "nested": b'{"a":{"b":1}}',
    "lists": b'{"a":[[],[],[]]}',
    "large number": b'{"a":1e30}',
}


class Name(str):
    """A field's name that counts how often it is looked at."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        Name.looks += 1
        return super().__hash__()

    def __eq__(self, other: object) -> bool:
        Name.looks += 1
        return super().__eq__(other)


def looks(fields: int) -> int:
    """How often names are looked at to find that the last one of `fields` is there already."""
    pairs: list[tuple[str, object]] = [(Name(f"field_{n}"), 1) for n in range(fields)]
    Name.looks = 0
    with pytest.raises(ValueError, match="is given twice"):
        without_repeats([*pairs, (Name(f"field_{fields - 1}"), 2)])
    return Name.looks


def test_the_search_for_a_repeated_field_grows_with_the_fields() -> None:
    assert looks(900) < 2.5 * looks(450)


def test_an_event_has_so_many_fields(client: Client) -> None:
    text = orjson.dumps({f"f{n}": 1 for n in range(MOST_FIELDS)})
    assert client.post(text).status_code == 202
    for end in (b',"f0":1}', b',"g":1}', b',"g":"\\n"}'):
        body = text[:-1] + end
        for sent, kind in ((body, "x-ndjson"), (body, "json"), (b"[" + body + b"]", "json")):
            refused = client.post(sent, headers={"Content-Type": f"application/{kind}"})
            # orjson has one field of two with the same name, so the bound is seen by the careful look alone.
            assert (refused.status_code, str(MOST_FIELDS) in refused.text) == (400, True), (end, kind)


@pytest.mark.parametrize("media", ["application/x-ndjson", "application/json", ""])
@pytest.mark.parametrize("line", UNUSUAL.values(), ids=UNUSUAL)
def test_many_unusual_events_are_no_work_for_the_event_loop(
    monkeypatch: pytest.MonkeyPatch, line: bytes, media: str
) -> None:
    """Some microseconds an event: of a few events for the loop itself, of more for a thread."""
    here: list[int] = []
    loop = threading.get_ident()
    for name in ("check_event", "check_array"):
        monkeypatch.setattr(ndjson, name, lambda *_: here.append(threading.get_ident()))

    def check(count: int) -> list[int]:
        here.clear()
        body = b"\n".join([line] * count) if media != "application/json" else b"[" + b",".join([line] * count) + b"]"
        assert len(body) < INLINE_BYTES
        with ThreadPoolExecutor(1) as pool:
            assert asyncio.run(canonical_events(body, MEDIA_TYPES[media], "", BOUNDS, pool)).count == count
        return here

    few, many = CAREFUL_INLINE_BYTES // len(line) // 2, 4 * CAREFUL_INLINE_BYTES // len(line)
    assert set(check(few)) == {loop}
    assert here
    assert loop not in check(many)
    assert here
    if media == "application/x-ndjson":  # and the plain ones of many bytes stay where they are quickest
        plain = b"\n".join([b'{"a":1}'] * 10_000)
        with ThreadPoolExecutor(1) as pool:
            pool.shutdown()
            assert asyncio.run(canonical_events(plain, MEDIA_TYPES[media], "", BOUNDS, pool)).count == 10_000


def port_of(base: str) -> int:
    """The port of a gateway's URL."""
    return urlsplit(base).port or 0


@pytest.mark.parametrize("first", [b"", b"{"], ids=["no byte", "one byte"])
@pytest.mark.parametrize("path", [EVENTS, "/v1/dead-letters/replay"])
def test_a_body_that_does_not_come_is_a_408(
    base: str, client: Client, monkeypatch: pytest.MonkeyPatch, first: bytes, path: str
) -> None:
    monkeypatch.setattr(body_module, "BODY_SECONDS", 0.3)
    with Raw(port_of(base)) as raw:
        raw.send(post(path, first, f"Authorization: Bearer {client.token}", length=100))
        status, problem = raw.answer()
        assert (status, orjson.loads(problem)["type"]) == (408, "urn:pipeline-platform:problem:timeout")
        assert raw.ended()


POSTS = [
    "/v1/dead-letters/replay",
    "/v1/dead-letters/discard",
    "/v1/assets/1/replay",
    EVENTS,
]


@pytest.mark.parametrize("path", POSTS)
@pytest.mark.parametrize("scopes", [(), ("read",)], ids=["anonymous", "reader"])
def test_nobody_else_has_a_body_read(
    base: str, connected: Callable[..., Client], path: str, scopes: tuple[str, ...]
) -> None:
    token = connected(base, *scopes).token
    headers = [f"Authorization: Bearer {token}"] if token else []
    for body, length in ((b"", 400_000), (b"no json", 7)):  # the first never comes: nobody waits for it
        with Raw(port_of(base)) as raw:
            raw.send(post(path, body, *headers, length=length))
            assert raw.answer()[0] == (403 if scopes else 401)


def test_whoever_may_is_admitted_once(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    admit = admission.admit

    async def counted(*arguments: Any, **options: Any) -> object:
        asked.append(arguments)
        return await admit(*arguments, **options)

    monkeypatch.setattr(access, "admit", counted)
    answer = client.http.post(f"{client.base}/v1/dead-letters/replay", json={"filter": {}, "nonsense": 1})
    assert answer.status_code == 422
    assert len(asked) == 1


def test_an_export_ends(base: str, client: Client, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = {**GOOD, "value": "x", "pad": "p" * 60_000}
    for _ in range(4):
        client.post([bad] * 100)
    pipeline.run()
    monkeypatch.setattr(dead_letters, "EXPORT_SECONDS", 1.5)
    with Raw(port_of(base), receive_buffer=4096) as first, Raw(port_of(base), receive_buffer=4096) as second:
        for raw in (first, second):
            raw.send(get("/v1/dead-letters/export", f"Authorization: Bearer {client.token}"))
            assert raw.socket.recv(12) == b"HTTP/1.1 200"
        assert not _exports(client)
        until(lambda: _exports(client), 10)  # nobody reads the two, and yet there is room again


def _exports(client: Client) -> bool:
    with client.get("/v1/dead-letters/export", stream=True) as answer:
        return answer.status_code == 200
