"""Rows of JSON: lines, the elements of an array, or objects over several lines; each as the bytes that the file has.

Nothing is parsed and written again on the way: the gateway's checks see a repeated field or an integer beyond 64 bits
as they stand in the file. An element is put on one line, no more. A few MiB are in memory at a time.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import Any

from pipeline_platform.cli.files.event_rows import CHUNK, LINE_MAX, Row
from pipeline_platform.core.json_elements import SPACE, end_of, next_element, text_end
from pipeline_platform.errors import PermanentError

_BOM = b"\xef\xbb\xbf"
_SHOWN = 2**10  # bytes that are kept of a line that is too long
_TOO_LONG = f"longer than {LINE_MAX // 2**20} MiB; its beginning is all that is kept"
_LOOKED = 4  # so many times LINE_MAX is looked through for the end of an event that is too long, to leave it out
_WHITE = re.compile(rb"[ \t\r\n]*+")
_BREAKS = re.compile(rb"[ \t\r]*+\n[ \t\r\n]*+")


class _Text:
    """What has been read of a file and not been used yet: `data` from `at` on."""

    def __init__(self, file: io.BufferedReader[Any], name: str) -> None:
        self._file, self.name = file, name
        self.data, self.at = b"", 0
        while len(self.data) < len(_BOM) and self.more():
            pass
        self.data = self.data.removeprefix(_BOM)

    def more(self) -> bool:
        """Reads on; of a long event as much again as is there, so that looking from `at` anew costs twice at most."""
        rest = self.data[self.at :]
        part = self._file.read1(CHUNK) if len(rest) < CHUNK else self._file.read(len(rest))
        self.data, self.at = rest + part, 0
        return bool(part)

    def beginning(self) -> bytes:
        """The first byte that is no white space; none at the end of the file."""
        while True:
            self.at = _WHITE.match(self.data, self.at).end()  # type: ignore[union-attr]  # it matches nothing, too
            if self.at < len(self.data):
                return self.data[self.at : self.at + 1]
            if not self.more():
                return b""

    def unended(self, number: int) -> PermanentError:
        """Says which event has no end."""
        most = _LOOKED * LINE_MAX
        long = f"it is longer than {most // 2**20} MiB: " if len(self.data) - self.at > most else ""
        return PermanentError(
            f"{self.name}, event {number}: {long}it has no end; a bracket or a quote is missing in it, or the file is "
            "cut short."
        )


def json_rows(file: io.BufferedReader[Any], name: str) -> Iterator[Row]:
    """The lines of NDJSON, the elements of an array, or objects that are written over lines; blank lines are skipped.

    Raises PermanentError where it cannot be told where an event ends.
    """
    text = _Text(file, name)
    before = 0
    while not text.data.strip(SPACE):
        before += text.data.count(b"\n")
        text.at = len(text.data)
        if not text.more():
            return
    head = text.data.lstrip(SPACE)[:1]
    if head == b"[":
        yield from _elements(text)
    elif head == b"{" and _over_lines(text):
        yield from _objects(text)
    else:
        yield from _lines(text, file, before)


def _lines(text: _Text, file: io.BufferedReader[Any], number: int) -> Iterator[Row]:
    tail, chunk = b"", text.data
    while chunk:
        lines = (tail + chunk).split(b"\n")
        tail = lines.pop()
        for line in lines:
            number += 1
            if len(line) > LINE_MAX:
                yield Row(number, line[:_SHOWN], _TOO_LONG)
            elif event := line.strip(b" \t\r"):
                yield Row(number, event)
        if len(tail) > LINE_MAX:
            number += 1
            yield Row(number, tail[:_SHOWN], _TOO_LONG)
            tail, chunk = b"", _rest_of_line(file)
        else:
            chunk = file.read1(CHUNK)
    if event := tail.strip(b" \t\r"):
        yield Row(number + 1, event)


def _rest_of_line(file: io.BufferedReader[Any]) -> bytes:
    """Passes over the line; what comes behind it, nothing only at the end of the file."""
    while chunk := file.read1(CHUNK):
        _, newline, rest = chunk.partition(b"\n")
        if newline:
            return rest or file.read1(CHUNK)
    return b""


def _elements(text: _Text) -> Iterator[Row]:
    """The elements of an array, whatever they are."""
    text.beginning()
    text.at += 1
    number = 0
    if text.beginning() == b"]":
        text.at += 1
    else:
        sign = b","
        while sign == b",":
            number += 1
            element, sign = _element(text, number)
            yield _row(number, element)
    if text.beginning():
        raise PermanentError(
            f"{text.name}: something stands behind the end of its array, after event {number}. A file is one array, or "
            "one event a line."
        )


def _element(text: _Text, number: int) -> tuple[bytes, bytes]:
    """The next element, and the comma or bracket behind it."""
    while (found := next_element(text.data, text.at)) is None:
        if len(text.data) - text.at > _LOOKED * LINE_MAX or not text.more():
            raise text.unended(number)
    element, sign, text.at = found
    return element, sign


def _over_lines(text: _Text) -> bool:
    """Whether the first object is JSON and goes over several lines. Nothing is used up by looking."""
    while True:
        start = _WHITE.match(text.data).end()  # type: ignore[union-attr]  # it matches nothing, too
        end = end_of(text.data, start, array=False)
        if end >= 0:
            return b"\n" in text.data[start:end] and _is_json(text.data[start:end])
        if len(text.data) > CHUNK or not text.more():
            return False


def _objects(text: _Text) -> Iterator[Row]:
    """Objects one behind another, each over as many lines as it likes; what is none of them ends with its line."""
    number = 0
    while head := text.beginning():
        number += 1
        while (end := end_of(text.data, text.at, array=False) if head == b"{" else text.data.find(b"\n", text.at)) < 0:
            if len(text.data) - text.at > _LOOKED * LINE_MAX:
                raise text.unended(number)
            if not text.more():
                if head == b"{":
                    raise text.unended(number)
                end = len(text.data)
                break
        element, text.at = text.data[text.at : end], end
        yield _row(number, element.strip(SPACE))


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _row(number: int, element: bytes) -> Row:
    if not element:
        return Row(number, b"", "there is nothing between two commas, or behind the last", "event")
    if len(element) > LINE_MAX:
        return Row(number, element[:_SHOWN], _TOO_LONG, "event")
    return Row(number, _on_one_line(element) if b"\n" in element else element, unit="event")


def _on_one_line(element: bytes) -> bytes:
    """A line break within a text is no JSON, and stays something that is none."""
    if b"\\" not in element and b"\n" not in b"".join(element.split(b'"')[1::2]):
        return b" ".join([line.strip(b" \t\r") for line in element.split(b"\n")])
    parts, at = [], 0
    while (quote := element.find(b'"', at)) >= 0:
        end = text_end(element, quote + 1)
        end = len(element) if end < 0 else end
        parts += [_BREAKS.sub(b" ", element[at:quote]), element[quote:end].replace(b"\n", b"\r")]
        at = end
    return b"".join([*parts, _BREAKS.sub(b" ", element[at:])])
