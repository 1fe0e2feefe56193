"""Lines of CSV with a header as one event of NDJSON each. What is wrong with a line is that line's problem alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

from pipeline_platform.cli.event_rows import Row, csv_row
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError


def csv_rows(file: io.BufferedReader[Any], name: str, spec: StreamSpec | None) -> Iterator[Row]:
    """The rows behind the header, which has to name its columns."""
    # What is not UTF-8 becomes surrogates, which cannot be written as JSON: such a row is refused, not the file.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    lines = _Lines(text)
    reader = csv.reader(lines, strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        if len(set(header)) < len(header) or not all(header):
            raise PermanentError(f"{name}, line 1: the header names a column twice or not at all.")
        measures = frozenset(spec.measures) if spec else frozenset()
        while True:
            number = lines.begin_record()
            try:
                fields = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                # The line where the record begins is the bad one: a quote that nobody closed must not take others along.
                yield Row(number, lines.keep_first(), f"not CSV: {error}")
                reader = csv.reader(lines, strict=True)
                continue
            if not any(map(str.strip, fields)):
                continue
            if len(fields) == len(header):
                yield csv_row(number, header, fields, measures)
            else:
                yield Row(number, lines.record(), f"{len(fields)} fields, the header has {len(header)}")
    except csv.Error as error:
        raise PermanentError(f"{name}, line 1: not CSV: {error}.") from None
    finally:
        text.detach()


class _Lines:
    """The lines of a text, those of the record that is being read kept, so that they can be read again."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self._again: list[str] = []  # the last comes first
        self._record: list[str] = []
        self._number = 0  # of lines before the record

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.pop() if self._again else next(self._text)
        self._record.append(line)
        return line

    def begin_record(self) -> int:
        """Forgets the record before; the number of the line where the next one begins."""
        self._number += len(self._record)
        self._record.clear()
        return self._number + 1

    def record(self) -> bytes:
        """What the file has."""
        return "".join(self._record).rstrip("\r\n").encode("utf-8", "surrogateescape")

    def keep_first(self) -> bytes:
        """The record's first line; the others will be read again."""
        self._again.extend(reversed(self._record[1:]))
        del self._record[1:]
        return self.record()
