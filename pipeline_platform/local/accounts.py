"""The operating-system accounts that root hands work to: one for the embedded servers, another for our services.

PostgreSQL refuses to run as root, and nothing else has any business to. An ordinary user runs everything as themselves.
No account is ever created and no folder of the user's is ever widened.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline_platform.errors import SettingError

CANDIDATES = ("postgres", "nobody")
# Not PostgreSQL's, whose files are the events themselves. What faces the network has one of its own, so that it cannot
# look into the others' environment.
SERVICE_CANDIDATES, EDGE_CANDIDATES = ("daemon", "nobody"), ("nobody", "daemon")
UNPRIVILEGED_PORTS = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")

# Asked as the account itself, so that ACLs and mount options count too. Python is loaded before the switch: the
# interpreter may well live where the account cannot look.
_PROBE = """
import os, sys
uid, gid, program, *paths = sys.argv[1:]
os.setgroups([]); os.setgid(int(gid)); os.setuid(int(uid))
wanted = lambda path: os.X_OK if path == program or not os.path.isfile(path) else os.R_OK
print(next((path for path in paths if not os.access(path, wanted(path))), ""))
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


def service_account(
    needed: Iterable[Path], ports: Iterable[int] = (), candidates: Sequence[str] = SERVICE_CANDIDATES
) -> tuple[Account | None, str]:
    """Whom our own services run as: None for an ordinary user, and for root an account that reaches all of `needed`.

    The first of `candidates` that there is. None and a sentence why, when root has to run them itself.
    """
    if os.geteuid() != 0:
        return None, ""
    try:
        lowest = int(UNPRIVILEGED_PORTS.read_text())
    except (OSError, ValueError):
        lowest = 1024
    if low := [port for port in ports if port < lowest]:
        return None, f"port {low[0]} is root's alone; use one from {lowest} on and a proxy before it"
    for name in candidates:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        account = Account(name, entry.pw_uid, entry.pw_gid)
        for path in needed:
            if closed := first_unreachable(account, path):
                return None, f"the account {name} cannot enter {closed}; install where it can, as in /opt or /srv"
        return account, ""
    return None, f"there is no account {' or '.join(candidates)}"


def python_files() -> list[Path]:
    """What an account has to reach to run our services: the interpreter, this package, and what it imports."""
    origins = [importlib.util.find_spec(name) for name in ("pipeline_platform", "dagster", "psycopg", "uvicorn")]
    packages = [Path(spec.origin) for spec in origins if spec is not None and spec.origin]
    return [Path(sys.executable), Path(sys.executable).resolve(), *packages]


def first_unreachable(account: Account | None, path: Path) -> Path | None:
    """The first folder on the way to `path`, or `path` itself, that the account may not enter, execute or read."""
    steps = [*reversed(path.parents), path]
    program = str(path) if os.access(path, os.X_OK) else ""
    if account is None:
        return next((step for step in steps if not os.access(step, os.X_OK)), None)
    who = [str(account.uid), str(account.gid)]
    command = [sys.executable, "-I", "-S", "-c", _PROBE, *who, program, *map(str, steps)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.removesuffix("\n")
    return Path(answer) if answer else None


def fresh_folder(path: Path, account: Account | None) -> Path:
    """`path` made anew, empty, as a folder that nobody but the account enters.

    Its parent has to be ours alone: what lies in such a folder is the account's, and root never writes there.
    """
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path)
    return private_folder(path, account)


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
