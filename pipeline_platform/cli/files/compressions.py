"""Compressed files as `ingest` reads them: gzip and zstd, told by their first bytes; others are named in words."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from pipeline_platform.errors import PermanentError

CHUNK = 2**20
READ = (".gz", ".zst", ".zstd")
DAMAGES = (EOFError, zlib.error, zstandard.ZstdError)
_SAYING = 32  # bytes that say what a file is
_PIECE = 4 * 2**10  # what is behind the end of a member is copied, so a decoder gets little at once
_SKIPPABLE = range(0x50, 0x60)  # the first byte of a frame that holds no data

# What else there is: its suffixes, the first bytes, its name, and how to make it plain.
OTHERS: tuple[tuple[tuple[str, ...], tuple[bytes, ...], str, str], ...] = (
    ((".bz2", ".bz"), tuple(b"BZh%d1AY&SY" % level for level in range(1, 10)), "bzip2", "bzip2 -dc"),
    ((".xz",), (b"\xfd7zXZ\0",), "xz", "xz -dc"),
    ((".lzma",), (), "lzma", "xz -dc"),
    ((".zip",), (b"PK\x03\x04", b"PK\x05\x06"), "zip", "unzip -p"),
    ((".lz4",), (b"\x04\x22\x4d\x18",), "lz4", "lz4 -dc"),
    ((".7z",), (b"7z\xbc\xaf\x27\x1c",), "7-Zip", "7z x -so"),
    ((".z",), (b"\x1f\x9d",), "compress", "gzip -dc"),
    ((".br",), (), "brotli", "brotli -dc"),
    ((".rar",), (b"Rar!\x1a\x07",), "rar", "unrar p -inul"),
    ((".snappy", ".sz"), (b"\xff\x06\0\0sNaPpY",), "snappy", "snzip -dc"),
)
WORKBOOKS = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")


def refuse_other_suffix(path: Path) -> None:
    """Raises PermanentError when the file's name says that it cannot be read, with what makes it readable."""
    suffix = path.suffix.lower()
    if suffix in WORKBOOKS:
        raise _workbook(str(path))
    if suffix in (".tar", ".tgz", ".tbz", ".txz") or (len(path.suffixes) > 1 and path.suffixes[-2].lower() == ".tar"):
        raise _archive(str(path))
    for suffixes, _, kind, command in OTHERS:
        if suffix in suffixes:
            raise _other(str(path), kind, command)


def plain(file: io.BufferedReader[Any], name: str) -> io.BufferedReader[Any]:
    """The bytes, decompressed; the first ones decide, since standard input has no name."""
    head, file = beginning(file, lambda head: len(head) >= _SAYING)
    if head[:2] == b"\x1f\x8b":
        return io.BufferedReader(_Unpacked(file, _gzip_member), CHUNK)
    if head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and head[0] in _SKIPPABLE):
        return io.BufferedReader(_Unpacked(file, _zstd_frame), CHUNK)
    if b"[Content_Types].xml" in head or head.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        raise _workbook(name)
    for _, beginnings, kind, command in OTHERS:
        if head.startswith(beginnings):
            raise _other(name, kind, command)
    return file


def _gzip_member() -> Any:
    return zlib.decompressobj(16 + zlib.MAX_WBITS)


def _zstd_frame() -> Any:
    return zstandard.ZstdDecompressor().decompressobj()


def refuse_archive(head: bytes, name: str) -> None:
    """Raises PermanentError for a tar: it may well be within the gzip."""
    if head[257:262] == b"ustar":
        raise _archive(name)


def damaged(name: str, error: Exception) -> PermanentError:
    """What to say of one of DAMAGES."""
    if "too much memory" in str(error):
        return PermanentError(f"{name} needs a window of more than 128 MiB; compress it again without --long.")
    return PermanentError(f"{name} is damaged, or ends in the middle of its compression: {error}.")


def _other(name: str, kind: str, command: str) -> PermanentError:
    return PermanentError(
        f"{name} is compressed with {kind}, and what is read is gzip and zstd; "
        f"go through `{command} FILE | pipeline-platform ingest STREAM - --format FORMAT`."
    )


def _workbook(name: str) -> PermanentError:
    return PermanentError(f"{name} is a workbook of a spreadsheet; save its sheet as CSV.")


def _archive(name: str) -> PermanentError:
    return PermanentError(f"{name} is an archive; unpack it with `tar -xf FILE` and send each file.")


def beginning(
    file: io.BufferedReader[Any], enough: Callable[[bytes], bool], most: int = CHUNK
) -> tuple[bytes, io.BufferedReader[Any]]:
    """The first bytes, as many as make `enough` or `most`, and the file with them still to be read.

    `peek` would not do: of a pipe it may have a single byte.
    """
    head = b""
    while len(head) < most and not enough(head) and (more := file.read1(CHUNK)):
        head += more
    return head, io.BufferedReader(_Prefixed(head, file), CHUNK)


class _Prefixed(io.RawIOBase):
    """A file behind some bytes."""

    def __init__(self, head: bytes, file: io.BufferedReader[Any]) -> None:
        self._head = memoryview(head)
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._head:
            return self._file.readinto1(buffer)
        size = min(len(buffer), len(self._head))
        buffer[:size] = self._head[:size]
        self._head = self._head[size:]
        return size


class _Unpacked(io.RawIOBase):
    """What is packed in gzip members or zstd frames, empty and skippable ones too; each has a decoder of its own.

    All that comes before a damage is read. A last member that is cut short is one, which the libraries' readers of
    zstd do not notice.
    """

    def __init__(self, file: io.BufferedReader[Any], decoder: Callable[[], Any]) -> None:
        self._file = file
        self._make = decoder
        self._decoder = decoder()
        self._fed = False
        self._packed = memoryview(b"")
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            if not self._packed and not self._read_on():
                return 0
            if self._decoder.eof:
                if not self._packed[0]:  # zeros behind a member are padding
                    self._packed = memoryview(bytes(self._packed).lstrip(b"\0"))
                    continue
                self._decoder, self._fed = self._make(), False
            piece, self._fed = self._packed[:_PIECE], True
            self._left = memoryview(self._decoder.decompress(piece))
            self._packed = self._packed[len(piece) - len(self._decoder.unused_data) :]
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size

    def _read_on(self) -> bool:
        self._packed = memoryview(self._file.read1(CHUNK // 8))
        if not self._packed and self._fed and not self._decoder.eof:
            raise EOFError("the last part is cut short")
        return bool(self._packed)
