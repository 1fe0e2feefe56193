"""One `up` a state folder: the folder itself, and the lock that its holder keeps.

The lock is flock's: the kernel drops it when its holder ends, however it ends, so there is no stale lock to clear. The
file stays; the pid in it only serves the message.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pipeline_platform.errors import SettingError

LOCK_NAME = "up.lock"


def open_state_dir(state_dir: Path) -> Path:
    """The state folder as an absolute path, made when missing, with its fixed subfolders.

    What is ours is closed to everybody else. Where root hands work to other accounts, these may pass through what leads
    to their folders, and not look around. A state folder that was there keeps its mode; its parents are made passable.
    """
    passable = 0o711 if os.geteuid() == 0 else 0o700
    folder = Path(os.path.abspath(state_dir))
    try:
        for missing in reversed([path for path in folder.parents if not path.exists()]):
            _make(missing, 0o755)
        if not folder.exists():
            _make(folder, passable)
        for name, mode in (("secrets", 0o700), ("logs", 0o700), ("ports", 0o700), ("run", passable)):
            _make(folder / name, mode)
        (folder / LOCK_NAME).touch(mode=0o644)
    except OSError as error:
        raise SettingError(
            f"The state folder {folder} cannot be written ({error.strerror}); pass --state-dir with one of your own."
        ) from None
    return folder.resolve()


@contextlib.contextmanager
def hold(state_dir: Path) -> Iterator[Path]:
    """Keep the state folder for this process; SettingError names the process that has it already.

    Yields the folder, made when missing, as an absolute path.
    """
    folder = open_state_dir(state_dir)
    with (folder / LOCK_NAME).open("r+") as file:
        if not _locked(file):
            pid = file.read().strip() or "unknown"
            raise SettingError(
                f"The state folder {folder} is in use by process {pid}; stop that one, or pass another --state-dir."
            )
        file.truncate()
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield folder
        file.seek(0)
        file.truncate()


def holder(state_dir: Path) -> int | None:
    """The pid of the `up` that holds the folder, or None."""
    try:
        with (state_dir / LOCK_NAME).open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read() or 0) or None
    except (OSError, ValueError):
        pass  # no such folder, or a pid that is just being written
    return None


def _locked(file: TextIO) -> bool:
    """Try for a moment: `holder` takes the lock for an instant when it looks."""
    for _ in range(5):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def _make(path: Path, mode: int) -> None:
    path.mkdir(exist_ok=True)
    path.chmod(mode)  # mkdir's mode is narrowed by the umask
