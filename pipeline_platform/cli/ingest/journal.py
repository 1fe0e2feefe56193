"""What of a file has been sent: kept in the state folder, so that an interrupted `ingest` goes on where it stopped.

A file's rows are, from its first on: the acknowledged ones, then segments. Every cut is written down before its batch
is sent, so that the very same batch can be sent again, with the same Idempotency-Key, whatever --batch-size is then.
Rows are known again by a digest: a file that has grown goes on, one that was changed is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pipeline_platform.errors import SettingError

# free: not sent, or refused; sent: may have arrived; done: acknowledged while rows before it are not.
SegmentState = Literal["free", "sent", "done"]


@dataclass(frozen=True)
class Segment:
    """Consecutive rows behind the acknowledged ones; `digest` is the SHA-256 of a cut batch's rows."""

    rows: int
    state: SegmentState
    digest: str = ""


@dataclass
class Journal:
    """The state of one file's ingestion. `path` is where it is kept; None keeps nothing."""

    path: Path | None = None
    source: str = ""
    rows: int = 0
    digest: str = field(default_factory=lambda: hashlib.sha256().hexdigest())
    segments: list[Segment] = field(default_factory=list)
    key_id: str = ""
    events: int = 0
    requests: int = 0
    skipped: int = 0
    first_receipt: str = ""
    last_receipt: str = ""
    rejected_bytes: int = 0
    size: int = -1
    mtime_ns: int = -1
    complete: bool = False
    completed: str = ""

    @classmethod
    def load(cls, path: Path, source: str) -> Journal:
        """The journal at `path`, or a new one; SettingError when it is there and cannot be read."""
        try:
            content = json.loads(path.read_text())
            segments = [Segment(**segment) for segment in content.pop("segments")]
            return cls(path=path, segments=segments, **content)
        except FileNotFoundError:
            return cls(path=path, source=source)
        except (OSError, ValueError, TypeError, KeyError):
            raise SettingError(
                f"{path} cannot be read; look at what the warehouse has, then pass --restart or --run-id."
            ) from None

    def save(self) -> None:
        """Writes the file in one step."""
        if self.path is None:
            return
        content = {name: value for name, value in asdict(self).items() if name != "path"}
        aside = self.path.with_suffix(f".{os.getpid()}.new")
        try:
            aside.write_text(json.dumps(content))
            aside.replace(self.path)
        except OSError as error:
            raise SettingError(f"{self.path} cannot be written ({error.strerror}); the batch was not sent.") from None

    def fits(self, file: Path) -> bool:
        """Whether the file is, by size and time, the one that was sent completely."""
        status = file.stat()
        return self.complete and (self.size, self.mtime_ns) == (status.st_size, status.st_mtime_ns)


def journal_path(state_dir: Path, parts: Iterable[str]) -> Path | None:
    """Where the journal of this ingestion is kept, its folder made; None when the state folder cannot be written."""
    name = hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    folder = state_dir / "ingest"
    try:
        for missing in reversed([place for place in (folder, *folder.parents) if not place.exists()]):
            missing.mkdir(exist_ok=True)
            missing.chmod(0o755)  # the servers' account has to pass through the state folder
    except OSError:
        return None
    return folder / f"{name}.json" if os.access(folder, os.W_OK) else None
