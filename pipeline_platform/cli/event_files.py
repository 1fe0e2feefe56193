"""Opens what `ingest` reads: a file or standard input, plain, gzip or zstd, and says what format it is in."""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import IO, Any

import zstandard

from pipeline_platform.cli.csv_rows import csv_rows
from pipeline_platform.cli.event_rows import Row, json_rows
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError, SettingError

CHUNK = 2**20
COMPRESSIONS = (".gz", ".zst")


class Format(StrEnum):
    """What a file of events is written in."""

    NDJSON = "ndjson"
    CSV = "csv"
    PARQUET = "parquet"


SUFFIXES = {
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
    ".json": Format.NDJSON,
    ".rejected": Format.NDJSON,
    ".csv": Format.CSV,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
}


@dataclass(frozen=True)
class EventFile:
    """What is to be ingested; `path` is None for standard input."""

    path: Path | None
    format: Format
    compression: str = ""

    @classmethod
    def of(cls, name: str, given: Format | None) -> EventFile:
        """The file that the user named; SettingError when it cannot be read or its format is not known."""
        if name == "-":
            return cls(None, given or Format.NDJSON)
        path = Path(name)
        if not path.exists():
            raise SettingError(f"There is no file {name}.")
        if path.is_dir():
            raise SettingError(f"{name} is a folder; name a file.")
        compression = path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else ""
        suffix = (path.with_suffix("") if compression else path).suffix.lower()
        found = given or SUFFIXES.get(suffix)
        if found is None:
            raise SettingError(f"The name of {name} does not say its format; pass --format ndjson, csv or parquet.")
        return cls(path, found, compression)

    @property
    def name(self) -> str:
        """The file in messages."""
        return str(self.path) if self.path else "standard input"

    @property
    def identity(self) -> str:
        """What makes it the same file: its path. A copy elsewhere is another file, with events of its own."""
        return str(self.path.resolve()) if self.path else "-"

    @property
    def size(self) -> int | None:
        """Bytes on disk, None when that says nothing."""
        return self.path.stat().st_size if self.path is not None and self.path.is_file() else None


class OpenedFile:
    """A file of events being read; `position` is how many of its bytes have been."""

    def __init__(self, source: EventFile, spec: StreamSpec | None) -> None:
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
        """The events in order. PermanentError names the file and the place of what cannot be read at all."""
        name = self._source.name
        try:
            with contextlib.ExitStack() as stack:
                if self._source.format is Format.PARQUET:
                    # Not at the top: `up` would hold its 40 MB for as long as it runs.
                    from pipeline_platform.cli.parquet_rows import parquet_rows

                    yield from parquet_rows(stack.enter_context(self._seekable()), name)
                elif self._source.format is Format.CSV:
                    yield from csv_rows(self._plain(), name, self._spec)
                else:
                    yield from json_rows(self._plain(), name)
        except (EOFError, gzip.BadGzipFile, zlib.error, zstandard.ZstdError) as error:
            raise PermanentError(f"{name} is damaged, or ends in the middle of its compression: {error}.") from None
        except OSError as error:
            raise PermanentError(f"{name} cannot be read: {error.strerror or error}.") from None

    def _plain(self) -> io.BufferedReader[Any]:
        """The bytes, decompressed; standard input may be compressed too, so its first bytes decide."""
        raw: io.BufferedReader[Any] = io.BufferedReader(self._counted, CHUNK)
        head = raw.peek(4)[:4]
        if head[:2] == b"\x1f\x8b":
            return io.BufferedReader(gzip.GzipFile(fileobj=raw), CHUNK)
        if head == b"\x28\xb5\x2f\xfd":
            return io.BufferedReader(_Zstd(raw), CHUNK)
        return raw

    @contextlib.contextmanager
    def _seekable(self) -> Iterator[IO[bytes]]:
        """Parquet is read from its end: what cannot be seeked is copied to a temporary file first."""
        if self._source.path is not None and not self._source.compression and self._raw.seekable():
            yield self._raw
            return
        with tempfile.TemporaryFile() as spool:
            plain = self._plain()
            while chunk := plain.read(CHUNK):
                spool.write(chunk)
            spool.seek(0)
            yield spool


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


class _Zstd(io.RawIOBase):
    """Reads zstd frames, and unlike the library's reader notices when the last one is cut short."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._decoder = zstandard.ZstdDecompressor().decompressobj()
        self._fed = False
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            if self._decoder.eof:
                rest = self._decoder.unused_data or self._file.read(CHUNK // 8)
                self._decoder, self._fed = zstandard.ZstdDecompressor().decompressobj(), False
            else:
                rest = self._file.read(CHUNK // 8)
            if not rest:
                if self._fed:
                    raise EOFError("the last frame is cut short")
                return 0
            self._fed = True
            self._left = self._decoder.decompress(rest)
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
