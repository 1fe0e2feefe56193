"""Opens what `ingest` reads: a file or standard input, plain, gzip or zstd, and says what format it is in."""

from __future__ import annotations

import contextlib
import io
import stat
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

from pipeline_platform.cli.files.compressions import (
    CHUNK,
    DAMAGES,
    READ,
    beginning,
    damaged,
    plain,
    refuse_archive,
    refuse_other_suffix,
)
from pipeline_platform.cli.files.csv_rows import PLAIN, Dialect, csv_rows
from pipeline_platform.cli.files.encodings import as_utf8, ask_encoding
from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.cli.files.file_questions import ask_columns, looks_like_csv
from pipeline_platform.cli.files.json_rows import json_rows
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError, SettingError


class Format(StrEnum):
    """What a file of events is written in."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


SUFFIXES = {
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
    ".json": Format.NDJSON,
    ".csv": Format.CSV,
    ".tsv": Format.CSV,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
}


@dataclass(frozen=True)
class EventFile:
    """What is to be ingested; `path` is None for standard input.

    `kept` says whether it can be read again: standard input, a named pipe, a process substitution and a device cannot,
    and what comes from them a second time is something else.
    """

    path: Path | None
    format: Format
    compression: str = ""
    kept: bool = False
    dialect: Dialect = PLAIN
    encoding: str = ""

    @classmethod
    def of(cls, name: str, given: Format | None, dialect: Dialect = PLAIN, encoding: str = "") -> EventFile:
        """The file that the user named; SettingError when it cannot be read or its format is not known."""
        if name == "-":
            return cls(None, given or Format.NDJSON, dialect=dialect, encoding=encoding)._checked()
        if not name.strip():
            raise SettingError("The name of the file is empty; name a file, or - for standard input.")
        path = Path(name)
        try:
            status = path.stat()
        except FileNotFoundError:
            raise SettingError(f"There is no file {name}.") from None
        except (OSError, ValueError) as error:
            raise SettingError(f"{name!r} cannot be read: {getattr(error, 'strerror', None) or error}.") from None
        if stat.S_ISDIR(status.st_mode):
            raise SettingError(f"{name} is a folder; name a file.")
        refuse_other_suffix(path)
        compression = path.suffix.lower() if path.suffix.lower() in READ else ""
        suffix = (path.with_suffix("") if compression else path).suffix.lower()
        if suffix == ".rejected":
            raise SettingError(
                f"{name} lists what --skip-bad left out, with why, and is no file to send; mend what `jq -r .data` "
                "takes from it in a file of its own (of CSV with the header), and send that."
            )
        found = given or SUFFIXES.get(suffix)
        if found is None:
            raise SettingError(f"The name of {name} does not say its format; pass --format ndjson, csv or parquet.")
        if suffix == ".tsv" and found is Format.CSV:
            dialect = replace(dialect, delimiter=dialect.delimiter or "\t")
        kept = stat.S_ISREG(status.st_mode) and status.st_nlink > 0
        return cls(path, found, compression, kept, dialect, encoding)._checked()

    def _checked(self) -> EventFile:
        if self.format is not Format.CSV and self.dialect != PLAIN:
            raise SettingError(f"{self.name} is {self.format}: --delimiter and --decimal-comma are for CSV.")
        if self.format is Format.PARQUET and self.encoding:
            raise SettingError(f"{self.name} is Parquet, which is always UTF-8: leave --encoding out.")
        return self

    @property
    def name(self) -> str:
        """The file in messages."""
        return str(self.path) if self.path else "standard input"

    @property
    def identity(self) -> str:
        """What makes it the same file: its path. A copy elsewhere is another file, with events of its own."""
        return str(self.path.resolve()) if self.path and self.kept else "-"

    @property
    def size(self) -> int | None:
        """Bytes on disk, None when that says nothing."""
        return self.path.stat().st_size if self.path is not None and self.kept else None


class OpenedFile:
    """A file of events being read; `position` is how many of its bytes have been."""

    def __init__(self, source: EventFile, spec: StreamSpec) -> None:
        self._source = source
        self._spec = spec
        try:
            self._raw: IO[bytes] = source.path.open("rb") if source.path else sys.stdin.buffer
        except OSError as error:
            raise SettingError(f"{source.name} cannot be read: {error.strerror}.") from None
        self._counted = _Counted(self._raw)

    @property
    def position(self) -> int:
        """Bytes read so far, compressed ones where the file is."""
        return self._counted.count

    def close(self) -> None:
        """Closes a file; standard input stays open."""
        if self._source.path:
            self._raw.close()

    def rows(self) -> Iterator[Row]:
        """The events in order. PermanentError names the file and what is wrong with all of it, or with the rest."""
        source = self._source
        try:
            with contextlib.ExitStack() as stack:
                if source.format is Format.PARQUET:
                    # Not at the top: `up` would hold its 40 MB for as long as it runs.
                    from pipeline_platform.cli.files.parquet_rows import column_names, parquet_rows

                    file = stack.enter_context(self._seekable())
                    self._ask_parquet(file)
                    ask_columns(column_names(file, source.name), self._spec, source.name)
                    yield from parquet_rows(file, source.name, self._spec)
                elif source.format is Format.CSV:
                    yield from csv_rows(self._text(), source.name, self._spec, source.dialect)
                else:
                    yield from json_rows(self._text(), source.name)
        except DAMAGES as error:
            raise damaged(source.name, error) from None
        except OSError as error:
            raise PermanentError(f"{source.name} cannot be read: {error.strerror or error}.") from None
        except (ValueError, ArithmeticError, LookupError) as error:
            # No reader of rows should let one through; if one does, it ends the upload with a sentence all the same.
            raise PermanentError(
                f"{source.name} cannot be read any further: {type(error).__name__}: {error}."
            ) from None

    def _plain(self) -> io.BufferedReader[Any]:
        return plain(io.BufferedReader(self._counted, CHUNK), self._source.name)

    def _text(self) -> io.BufferedReader[Any]:
        """The text in UTF-8, whose first bytes say nothing against the format."""
        source, file = self._source, self._plain()
        if source.encoding:
            file = as_utf8(file, source.encoding, source.name)
        # Of what can be read again so much that a small file's damage is known; a pipe may be slow, so its first line.
        head, file = beginning(file, lambda head: not source.kept and b"\n" in head.strip())
        refuse_archive(head, source.name)
        if head.startswith(b"PAR1"):
            raise PermanentError(f"{source.name} is Parquet and not {source.format}; pass --format parquet.")
        if not source.encoding:
            ask_encoding(head, source.name, header=source.format is Format.CSV)
        first = head.removeprefix(b"\xef\xbb\xbf").strip().split(b"\n", 1)[0]
        is_text = source.format is Format.NDJSON and first[:1] not in (b"{", b"[")
        if is_text and looks_like_csv(first.decode("utf-8", "replace"), self._spec):
            raise PermanentError(f"{source.name} is CSV and not JSON; pass --format csv.")
        return file

    def _ask_parquet(self, file: IO[bytes]) -> None:
        """Raises PermanentError when the first bytes are those of another format."""
        head = file.read(CHUNK // 16)
        file.seek(0)
        name, text = self._source.name, head.removeprefix(b"\xef\xbb\xbf").lstrip()
        if head.startswith((b"ARROW1", b"FEA1")):
            raise PermanentError(f"{name} is Feather (Arrow) and not Parquet; write it as Parquet.")
        if text.startswith((b"{", b"[")):
            raise PermanentError(f"{name} is JSON and not Parquet; pass --format ndjson.")
        if looks_like_csv(text.split(b"\n", 1)[0].decode("utf-8", "replace"), self._spec):
            raise PermanentError(f"{name} is CSV and not Parquet; pass --format csv.")

    @contextlib.contextmanager
    def _seekable(self) -> Iterator[IO[bytes]]:
        """Parquet is read from its end: what cannot be seeked is copied to a temporary file first."""
        if self._source.path is not None and not self._source.compression and self._raw.seekable():
            yield self._raw
            return
        with tempfile.TemporaryFile() as spool:
            packed = self._plain()
            while chunk := packed.read(CHUNK):
                _spool(spool, chunk, self._source.name)
            spool.seek(0)
            yield spool


def _spool(spool: IO[bytes], chunk: bytes, name: str) -> None:
    try:
        spool.write(chunk)
    except OSError as error:
        raise SettingError(
            f"{tempfile.gettempdir()} has no room for a copy of {name} ({error.strerror}); set TMPDIR."
        ) from None


class _Counted(io.RawIOBase):
    """A raw file that counts what is read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read1(len(buffer)) if hasattr(self._file, "read1") else self._file.read(len(buffer))
        buffer[: len(data)] = data
        self.count += len(data)
        return len(data)
