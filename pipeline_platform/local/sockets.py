"""Folders for Unix sockets: closed to everybody else, and with a path short enough for the kernel."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from pipeline_platform.errors import SettingError
from pipeline_platform.local.accounts import Account, private_folder

PATH_LIMIT = 107  # bytes of sun_path, without its closing NUL


def socket_folder(folder: Path, longest: str, account: Account | None) -> Path:
    """`folder` as a 0700 folder of the account, or one below the temporary folder where its path is too long.

    `longest` is the longest name of a file in it. SettingError when somebody else's folder is in the way.
    """
    if len(os.fsencode(folder / longest)) <= PATH_LIMIT:
        return private_folder(folder, account)
    uid = account.uid if account else os.geteuid()
    # The same folder every time. Somebody else's of that name is refused by private_folder; ours is never left open.
    name = f"pipeline-{uid}-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    short = private_folder(Path(tempfile.gettempdir(), name), account)
    if short.is_symlink() or short.stat().st_mode & 0o077:
        raise SettingError(f"The folder {short} is open to other users; remove it.")
    return short
