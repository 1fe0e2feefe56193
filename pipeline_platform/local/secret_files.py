"""Generated passwords: made once, kept in 0600 files of the invoking user."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def secret(state_dir: Path, name: str) -> str:
    """The password in `secrets/<name>`, generated the first time."""
    path = state_dir / "secrets" / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        password = secrets.token_urlsafe(24)
        write_private(path, password + "\n")
        return password


def write_private(path: Path, text: str, uid: int = -1, gid: int = -1) -> None:
    """Write a 0600 file in one step (aside, then renamed), given to `uid` and `gid` when they are not -1."""
    aside = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        if uid >= 0:
            os.fchown(descriptor, uid, gid)
        os.fsync(descriptor)
    aside.replace(path)
