"""The encoding of a text file: UTF-8, or what --encoding says; what its first bytes tell is asked before it is sent."""

from __future__ import annotations

import codecs
import io
from typing import Any

from pipeline_platform.cli.files.compressions import CHUNK
from pipeline_platform.errors import PermanentError, SettingError

_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_ONE_ROW = "pipeline-platform-one-row"
# Not one character a byte that cannot be decoded: a byte that is no UTF-8 either, so that its row is refused alone.
codecs.register_error(_ONE_ROW, lambda error: ("\udcff", getattr(error, "end", 0)))


def require_encoding(encoding: str) -> str:
    """The encoding by its own name; SettingError when there is none of this name for text."""
    try:
        found = codecs.lookup(encoding)
        "a".encode(encoding)  # refuses what is no encoding of text, such as zip
        codecs.getincrementaldecoder(encoding)(_ONE_ROW).decode(b"")  # and what is one of names, such as idna
    except (LookupError, UnicodeError, ValueError):
        raise SettingError(
            f"There is no encoding {encoding!r}; such are utf-8, utf-16, windows-1252, iso-8859-15 and shift_jis."
        ) from None
    return found.name


def ask_encoding(head: bytes, name: str, *, header: bool) -> None:
    """Raises PermanentError with the --encoding to pass when a file's first bytes are not UTF-8.

    `header`: the first line is no row, so that what is wrong with it is wrong with the file.
    """
    found = next((found for mark, found in _MARKS if head.startswith(mark)), None) or _unmarked(head[:512])
    if found:
        raise PermanentError(f"{name} is {found.upper()} and not UTF-8; pass --encoding {found}.")
    if head.isascii():
        return
    lines = head.split(b"\n")[: None if len(head) < CHUNK else -1]
    strange = {number: line for number, line in enumerate(lines, 1) if not line.isascii()}
    bad = [number for number, line in strange.items() if not _decodes(line, "utf-8")]
    # A single bad line may be a damaged one; the header, or every line that could tell, is the file.
    if bad and ((header and bad[0] == 1) or len(bad) == len(strange) > 1):
        guess = "windows-1252" if all(_decodes(strange[number], "windows-1252") for number in bad) else "iso-8859-1"
        raise PermanentError(
            f"{name}, line {bad[0]}: not UTF-8, nor is any line that could tell; pass its encoding, perhaps "
            f"--encoding {guess}."
        )


def _unmarked(head: bytes) -> str:
    """UTF-16 without its mark: every other byte of plain letters is zero."""
    for start, found in ((1, "utf-16-le"), (0, "utf-16-be")):
        if len(head) >= 4 and head[start::2].count(0) > 0.8 * (len(head) // 2) and not head[1 - start :: 2].count(0):
            return found
    return ""


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def as_utf8(file: io.BufferedReader[Any], encoding: str, name: str) -> io.BufferedReader[Any]:
    """The text of `file` in UTF-8."""
    return io.BufferedReader(_Recoded(file, encoding, name), CHUNK)


class _Recoded(io.RawIOBase):
    def __init__(self, file: io.BufferedReader[Any], encoding: str, name: str) -> None:
        self._file = file
        self._whole = f"{name} is not {encoding}"
        self._decoder = codecs.getincrementaldecoder(encoding)(_ONE_ROW)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            data = self._file.read1(CHUNK // 8)
            try:
                text = self._decoder.decode(data, final=not data)
            except UnicodeError:  # of what has no byte order mark: of a row it would be that row's
                raise PermanentError(f"{self._whole} with its mark; perhaps --encoding utf-16-le, or utf-8.") from None
            self._left = memoryview(text.encode("utf-8", "surrogateescape"))
            if not data and not self._left:
                return 0
        size = min(len(buffer), len(self._left))
        buffer[:size] = self._left[:size]
        self._left = self._left[size:]
        return size
