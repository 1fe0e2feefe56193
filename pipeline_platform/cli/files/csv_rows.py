"""Lines of CSV with a header as one event of NDJSON each. What is wrong with a line is that line's problem alone."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline_platform.cli.files.compressions import beginning
from pipeline_platform.cli.files.event_rows import Row, csv_row
from pipeline_platform.cli.files.file_questions import ask_blanks, ask_header, ask_numbers, beyond
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError, SettingError

_SEP = re.compile(r'"?sep=(.)"?\r?\n?\Z', re.IGNORECASE)  # what spreadsheets write before the header
_COMMA_NUMBER = re.compile(r"[+-]?([0-9]+|[0-9]{1,3}(\.[0-9]{3})*(?=,))(,[0-9]+)?([eE][+-]?[0-9]+)?\Z")
_SAMPLE = 100  # lines
_LIMIT = f"a field is longer than {csv.field_size_limit():,} characters, or a quote is opened and not closed"
_WORDS = {"unexpected end": "a quote is opened and not closed", "larger than": _LIMIT, "expected after": "text follows "
          "a quote that is closed"}  # fmt: skip


@dataclass(frozen=True)
class Dialect:
    """How a CSV file is written, as far as the user says; the delimiter is a comma unless it is said."""

    delimiter: str = ""
    decimal_comma: bool = False

    @classmethod
    def of(cls, delimiter: str, *, decimal_comma: bool) -> Dialect:
        """From the command's options: SettingError for a delimiter that can be none."""
        sign = {"\\t": "\t", "tab": "\t"}.get(delimiter.lower(), delimiter)
        if delimiter and (len(sign) != 1 or sign in '"\r\n\0' or sign.isalnum()):
            raise SettingError(rf"--delimiter is one sign, such as ';', '|' or '\t', and not {delimiter!r}.")
        return cls(sign, decimal_comma)


PLAIN = Dialect()


def csv_rows(file: io.BufferedReader[Any], name: str, spec: StreamSpec, dialect: Dialect = PLAIN) -> Iterator[Row]:
    """The rows behind the header; PermanentError when the header, or all that follows, cannot be the stream's."""
    head, file = beginning(file, lambda head: head.strip().count(b"\n") > 0)
    sample = list(io.StringIO(head.decode("utf-8-sig", "surrogateescape"), newline=""))[:_SAMPLE]
    first = next((at for at, line in enumerate(sample) if line.strip(' \t\r\n,;|"')), len(sample))
    if first == len(sample):
        return
    delimiter = dialect.delimiter or ","
    if said := _SEP.match(sample[first]):
        if not dialect.delimiter and said[1] != delimiter:
            raise PermanentError(f"{name}, line {first + 1} says {said[0].strip()}; pass --delimiter {said[1]!r}.")
        first += 1
    ask_header(sample[first:], delimiter, spec, name, first)
    ask_blanks(sample[first:], delimiter, spec, name)
    if not dialect.decimal_comma:
        ask_numbers(sample[first:], delimiter, spec, name)
    # What is not UTF-8 becomes surrogates, which cannot be written as JSON: such a row is refused, not the file.
    text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        yield from _rows(_Lines(text), first, delimiter, spec, dialect)
    finally:
        text.detach()


def _rows(lines: _Lines, before: int, delimiter: str, spec: StreamSpec, dialect: Dialect) -> Iterator[Row]:
    """The rows behind `before` lines and the header."""
    for _ in range(before):
        next(lines)
    lines.begin_record()
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names = [column.strip() for column in next(reader)]
    width = len(names)
    header = names[: max((at for at, column in enumerate(names, 1) if column), default=0)]
    measures = frozenset(spec.measures)
    commas = [at for at, column in enumerate(header) if column in measures and dialect.decimal_comma]
    while True:
        number = lines.begin_record()
        try:
            fields = next(reader)
            if lines.are_rows(delimiter, width):
                raise csv.Error("unexpected end")
        except StopIteration:
            return
        except csv.Error as error:
            # The line where the record begins is the bad one: a quote that is not closed must not take others along.
            yield Row(number, lines.keep_first(), f"not CSV: {_in_words(error)}")
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            continue
        if not any(map(str.strip, fields)):
            continue
        if len(fields) != width:
            yield Row(number, lines.record(), f"{len(fields)} fields, the header has {width}")
        elif width > len(header) and (said := beyond(fields, len(header))):
            yield Row(number, lines.record(), said)
        elif odd := [at for at in commas if fields[at] and not _COMMA_NUMBER.match(fields[at].strip())]:
            problem = f"{header[odd[0]]}: {fields[odd[0]]!r} is no number with a decimal comma"
            yield Row(number, lines.record(), problem)
        else:
            for at in commas:
                fields[at] = fields[at].replace(".", "").replace(",", ".")
            yield csv_row(number, header, fields[: len(header)], measures)


def _in_words(error: csv.Error) -> str:
    return next((words for part, words in _WORDS.items() if part in str(error)), str(error))


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

    def are_rows(self, delimiter: str, columns: int) -> bool:
        """Whether the record is several lines that look like a row each, as between two that have a stray quote."""
        if len(self._record) == 1 or columns == 1:
            return False
        alike = [line.count(delimiter) == columns - 1 for line in self._record]
        return all(alike[:-1]) and (alike[-1] or len(alike) > 2)

    def record(self) -> bytes:
        """What the file has."""
        return "".join(self._record).rstrip("\r\n").encode("utf-8", "surrogateescape")

    def keep_first(self) -> bytes:
        """The record's first line; the others will be read again."""
        self._again.extend(reversed(self._record[1:]))
        del self._record[1:]
        return self.record()
