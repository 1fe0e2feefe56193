"""FILE.rejected: what --skip-bad leaves out, one JSON object a row, with why. A list to read, and no file to send."""

from __future__ import annotations

import base64
import contextlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import orjson

from pipeline_platform.cli.files.event_files import EventFile
from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.cli.ingest.batches import Target
from pipeline_platform.cli.ingest.journal import Journal
from pipeline_platform.errors import SettingError


def record(row: Row) -> bytes:
    """A row that is left out: its place, what is wrong with it, and what there is of it; bytes that are no UTF-8 as
    base64."""
    said = {row.unit: row.number, "problem": row.problem}
    try:
        return orjson.dumps({**said, "data": row.data.decode()}) + b"\n"
    except UnicodeDecodeError:
        return orjson.dumps({**said, "base64": base64.b64encode(row.data).decode()}) + b"\n"


def rejected_path(source: EventFile, target: Target) -> Path:
    """Where --skip-bad writes what is left out: a file of each run's own where the input cannot be read again."""
    if source.path is not None and source.kept:
        place = Path(source.identity) if source.path.parts[:2] in (("/", "dev"), ("/", "proc")) else source.path
        return place.with_name(f"{place.name}.rejected")
    return Path(f"{target.stream}-{re.sub(r'[^A-Za-z0-9.-]', '_', target.run_id)[:64]}.rejected")


@contextlib.contextmanager
def rejected_rows(source: EventFile, target: Target, journal: Journal) -> Iterator[Callable[[], IO[bytes]]]:
    """Opens FILE.rejected when there is something to write, as long as it was when the journal was written."""
    opened: list[IO[bytes]] = []
    path = rejected_path(source, target)

    def file() -> IO[bytes]:
        if not opened:
            try:
                again = bool(journal.rejected_bytes) and path.exists()
                opened.append(path.open("r+b" if again else "wb"))
                if again:
                    opened[0].seek(min(journal.rejected_bytes, path.stat().st_size))
                    opened[0].truncate()
            except OSError as error:
                raise SettingError(f"{path} cannot be written: {error.strerror}.") from None
        return opened[0]

    try:
        yield file
    finally:
        for each in opened:
            with contextlib.suppress(OSError):  # what could not be written has been said
                each.close()
