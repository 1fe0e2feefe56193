"""The operating-system account that embedded servers run as.

PostgreSQL refuses to run as root, and Valkey has no business to. Root therefore hands both to an unprivileged account;
an ordinary user runs them as themselves. No account is ever created and no folder of the user's is ever widened.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from pipeline_platform.errors import SettingError

CANDIDATES = ("postgres", "nobody")

# Asked as the account itself, so that ACLs and mount options count too. Python is loaded before the switch: the
# interpreter may well live where the account cannot look.
_PROBE = """
import os, sys
uid, gid, *paths = sys.argv[1:]
os.setgroups([]); os.setgid(int(gid)); os.setuid(int(uid))
print(next((path for path in paths if not os.access(path, os.X_OK)), ""))
"""


@dataclass(frozen=True)
class Account:
    """An unprivileged account to switch to."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """Whom servers run as: None for an ordinary user (no switch), `postgres` or else `nobody` for root."""
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise SettingError(
        "Servers cannot run as root and there is no account `postgres` or `nobody`; run as another user."
    )


def first_unreachable(account: Account | None, path: Path) -> Path | None:
    """The first folder on the way to `path`, or `path` itself, that the account may not enter or execute."""
    steps = [*reversed(path.parents), path]
    if account is None:
        return next((step for step in steps if not os.access(step, os.X_OK)), None)
    command = [sys.executable, "-I", "-S", "-c", _PROBE, str(account.uid), str(account.gid), *map(str, steps)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.removesuffix("\n")
    return Path(answer) if answer else None


def require_reachable(account: Account | None, folder: Path) -> None:
    """SettingError that names the closed folder when the account's servers could not reach `folder`."""
    closed = first_unreachable(account, folder)
    if closed is not None:
        who = f"the account {account.name}, which servers run as," if account else "you"
        raise SettingError(f"The folder {closed} is not reachable for {who} so pass --state-dir with another folder.")


def private_folder(path: Path, account: Account | None) -> Path:
    """`path` as a 0700 folder of the account; SettingError when it already belongs to somebody else."""
    uid = account.uid if account else os.geteuid()
    if not path.exists():
        path.mkdir(mode=0o700)
        path.chmod(0o700)
        if account:
            os.chown(path, account.uid, account.gid)
    require_owner(path, uid)
    return path


def require_owner(path: Path, uid: int) -> None:
    """SettingError when `path` belongs to another user, as after one `up` as root and one without."""
    owner = path.lstat().st_uid
    if owner != uid:
        raise SettingError(
            f"The folder {path} belongs to user id {owner}, not {uid}; run as the user who made it or pass --state-dir."
        )
