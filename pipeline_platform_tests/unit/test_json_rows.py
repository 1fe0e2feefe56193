"""Rows of JSON files: every element as the bytes that the file has, whatever is around it."""

from __future__ import annotations

import io
import itertools
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_platform.cli.files import json_rows as module
from pipeline_platform.cli.files.json_rows import json_rows
from pipeline_platform.errors import PermanentError

FLAT = '{"a":1}'


class Trickle(io.RawIOBase):
    """A pipe that gives a few bytes at a time."""

    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size = io.BytesIO(data), size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        part = self._data.read(min(self._size, len(buffer)))
        buffer[: len(part)] = part
        return len(part)


def read(data: bytes, size: int = 10**6) -> list[tuple[int, bytes]]:
    """The rows without problems: place and bytes."""
    rows = list(json_rows(io.BufferedReader(Trickle(data, size)), "x.json"))
    assert [row.problem for row in rows] == [""] * len(rows)
    return [(row.number, row.data) for row in rows]


@pytest.mark.parametrize(
    "element",
    [
        FLAT,
        '{"source":"a","metric":"m","value":1,"value":2}',
        '{"value":123456789012345678901234567890}',
        '{"value":-0.0,"other":1E+2}',
        '{"value":NaN}',
        '{"value":1e400}',
        r'{"a":"\ud800"}',
        r'{"a":"\u0000"}',
        r'{"a":"}],[{\"\\"}',
        '{"a":{"b":[1,{"c":[]}]}}',
        '{ "a" : "two  spaces" }',
        '{"a":1}}',
        "1",
        "null",
        '"a,b]"',
        "[1, 2]",
        '{"größe":"ü"}',
        "{broken}",
    ],
)
@pytest.mark.parametrize("size", [1, 3, 10**6])
def test_an_element_is_handed_on_as_it_stands(element: str, size: int) -> None:
    raw = element.encode()
    body = b'\xef\xbb\xbf \n[ {"a":1} ,\r\n' + raw + b'\t,{"a":1}]\n '
    assert read(body, size) == [(1, b'{"a":1}'), (2, raw), (3, b'{"a":1}')]


@pytest.mark.parametrize("body", ["[]", " [ ] \n", "", "\n \n"])
def test_no_events_are_none(body: str) -> None:
    assert read(body.encode()) == []


def test_bytes_that_are_no_text_are_handed_on() -> None:
    assert read(b'[{"a":"\xff"},{}]') == [(1, b'{"a":"\xff"}'), (2, b"{}")]


@pytest.mark.parametrize("size", [1, 7, 10**6])
@pytest.mark.parametrize("count", [1, 3])
def test_objects_over_lines_are_events(size: int, count: int) -> None:
    event = {"a": 1, "b": {"c": ["x  y", "\n"]}}
    rows = read("\n".join([json.dumps(event, indent=2)] * count).encode() + b"\n\n", size)
    assert [(number, json.loads(row)) for number, row in rows] == [(n + 1, event) for n in range(count)]
    assert not any(b"\n" in row for _, row in rows)


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        (b'{"a":1}\n\n{"a":2}', [(1, b'{"a":1}'), (3, b'{"a":2}')]),
        (b'\n\r\n{"a":1}\r\n{"a":2}', [(3, b'{"a":1}'), (4, b'{"a":2}')]),
        (b'{"a":1\n{"a":2}\n', [(1, b'{"a":1'), (2, b'{"a":2}')]),
        (b'"a":1}\n{"a":2}', [(1, b'"a":1}'), (2, b'{"a":2}')]),
        (b'{"a":"x\n{"a":"y"}\n', [(1, b'{"a":"x'), (2, b'{"a":"y"}')]),
        (b'{"a":1} {\n"b":2}', [(1, b'{"a":1} {'), (2, b'"b":2}')]),
        (b"{\n}x\n", [(1, b"{ }"), (2, b"x")]),
    ],
)
@pytest.mark.parametrize("size", [1, 10**6])
def test_lines_are_lines_even_if_the_first_is_broken(body: bytes, rows: list[tuple[int, bytes]], size: int) -> None:
    assert read(body, size) == rows


def test_a_line_break_within_a_text_does_not_become_a_space() -> None:
    [(_, row)] = read(b'[{"a":\n"x\ny"}]')
    assert row == b'{"a": "x\ry"}'


@pytest.mark.parametrize("body", ["[1,,2]", "[,1,2]", "[1,2,]"])
def test_an_element_that_is_not_there_is_a_row_of_its_own(body: str) -> None:
    rows = list(json_rows(io.BufferedReader(io.BytesIO(body.encode())), "x.json"))
    assert sorted((row.data, row.problem[:16]) for row in rows) == [(b"", "there is nothing"), (b"1", ""), (b"2", "")]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ('[{"a":1}', "event 1: it has no end"),
        ('[{"a":1},', "event 2: it has no end"),
        ('[{"a":1},{"a":[}]', "event 2: it has no end"),
        ('[{"a":1},{"a":"x},{"a":"y"}]', "event 2: it has no end"),
        ("[", "event 1: it has no end"),
        ("[1][2]", "behind the end of its array, after event 1"),
        ('{\n"a":1}\n{"a":', "event 2: it has no end"),
    ],
)
def test_a_file_without_ends_is_told_after_what_could_be_read(body: str, words: str) -> None:
    with pytest.raises(PermanentError, match=words):
        list(json_rows(io.BufferedReader(io.BytesIO(body.encode())), "x.json"))


def test_what_is_too_long_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LINE_MAX", 1000)
    monkeypatch.setattr(module, "CHUNK", 100)
    rows = list(json_rows(io.BufferedReader(io.BytesIO(b"1\n" + b"x" * 5000 + b"\n2\n")), "x"))
    assert [(row.number, row.data[:2], bool(row.problem)) for row in rows] == [
        *((1, b"1", False), (2, b"xx", True), (3, b"2", False)),
    ]
    for body in (b'[1,"%s",3]', b'{"a":\n1}{"a":"%s"}{"a":\n3}', b'{"a":\n1}\n%s\n{"a":\n3}'):
        rows = list(json_rows(io.BufferedReader(io.BytesIO(body % (b"x" * 1500))), "x"))
        assert [(row.number, row.unit, bool(row.problem)) for row in rows] == [
            *((1, "event", False), (2, "event", True), (3, "event", False)),
        ]
        with pytest.raises(PermanentError, match="event 2: it is longer than"):
            list(json_rows(io.BufferedReader(io.BytesIO(body % (b"x" * 9000))), "x"))


class Long(io.RawIOBase):
    """An array of that many elements, made while it is read."""

    def __init__(self, count: int, element: bytes) -> None:
        self._parts = itertools.chain([b"["], itertools.repeat(element + b",\n", count), [b"{}]"])
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        while len(self._rest) < len(buffer) and (part := next(self._parts, b"")):
            self._rest += part
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


@pytest.mark.parametrize("escape", [b"", b'\\"'])
def test_a_long_array_is_never_in_memory_as_a_whole(escape: bytes) -> None:
    element = b'{"a":"' + b"x" * 10_000 + escape + b'"}'
    tracemalloc.start()
    try:
        assert sum(1 for _ in json_rows(io.BufferedReader(Long(4000, element), 2**16), "x.json")) == 4001
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 * 2**20


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(JSON, max_size=5), st.sampled_from([None, 1]), st.booleans(), st.integers(1, 9))
def test_any_array_comes_apart_into_its_elements(
    elements: list[object], indent: int | None, ascii_only: bool, size: int
) -> None:
    body = json.dumps(elements, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    rows = read(body, size)
    assert [number for number, _ in rows] == list(range(1, len(elements) + 1))
    assert json.dumps([json.loads(row) for _, row in rows]) == json.dumps(json.loads(body))
