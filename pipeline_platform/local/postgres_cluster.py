"""A PostgreSQL data folder: made whole or not at all, of the right version, and not in use by another server."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from pipeline_platform.errors import SettingError
from pipeline_platform.local.accounts import Account, private_folder, require_owner
from pipeline_platform.local.binaries import PostgresBinaries
from pipeline_platform.local.process_table import HAS_PROC, everyone, is_alive, runs_in
from pipeline_platform.local.secret_files import write_private

SUPERUSER = "postgres"  # only `up` knows its password; what is ours belongs to ordinary logins
# Nothing of the invoking user's environment: PG* variables and a foreign locale would change what the server does.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}


def prepare_cluster(
    data: Path, binaries: PostgresBinaries, account: Account | None, password: str, run_dir: Path, *, durable: bool
) -> None:
    """Make the cluster when it is missing; otherwise check that this server can and may open it."""
    uid = account.uid if account else os.geteuid()
    if not data.exists():
        _initialise(data, binaries, account, password, run_dir, durable=durable)
        return
    require_owner(data, uid)
    found = (data / "PG_VERSION").read_text().strip()
    if found != binaries.major:
        raise SettingError(
            f"The cluster in {data} is of PostgreSQL {found} but the installed one is {binaries.major}; pass another "
            f"--state-dir, or bring the data over with pg_dump of version {found}."
        )
    _clear_stale_lock(data, uid)


def _initialise(
    data: Path, binaries: PostgresBinaries, account: Account | None, password: str, run_dir: Path, *, durable: bool
) -> None:
    """initdb aside and rename, so that a killed initdb never leaves half a cluster under the real name."""
    for leftover in data.parent.glob(f"{data.name}.new-*"):
        shutil.rmtree(leftover)
    aside = private_folder(data.with_name(f"{data.name}.new-{os.getpid()}"), account)
    owner = (account.uid, account.gid) if account else (-1, -1)
    password_file = run_dir / "initdb.password"
    write_private(password_file, password + "\n", *owner)
    try:
        # The builtin provider's C.UTF-8 sorts by code point everywhere and for ever; the C library's order changes
        # with its version, which silently breaks text indexes.
        result = subprocess.run(
            [
                str(binaries.initdb),
                f"--pgdata={aside}",
                f"--username={SUPERUSER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--data-checksums",
                *([] if durable else ["--no-sync"]),
            ],
            env=ENVIRONMENT,
            cwd=data.parent,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    finally:
        password_file.unlink()
    if result.returncode != 0:
        shutil.rmtree(aside, ignore_errors=True)
        raise SettingError(f"PostgreSQL could not make its cluster in {data}: {result.stderr.strip()}")
    aside.rename(data)


def end_strays(data: Path, uid: int) -> None:
    """Kill the backends of a postmaster that is dead; the caller knows that no server is to run on this folder.

    Each backend leads a session of its own, and a busy one notices its postmaster's death only when its query is over.
    Until then it holds the shared memory, and no new server can start. Recovery makes the kill safe.
    """
    for process in everyone():
        if runs_in(process.pid, "postgres", data, uid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def _clear_stale_lock(data: Path, uid: int, patience: float = 35.0) -> None:
    """Deal with a `postmaster.pid` left behind; the caller holds the state folder's lock, so nobody may be using it.

    PostgreSQL itself clears the file when the pid in it is dead, but refuses when another program has got the number.
    A living postmaster is one that a killed `up` left, about to be ended by its reaper: it is waited for.
    """
    pid = _postmaster_pid(data)
    if pid is None:
        return
    deadline = time.monotonic() + patience
    while _serves(pid, data, uid):
        if time.monotonic() >= deadline:
            raise SettingError(
                f"PostgreSQL (process {pid}) is still running on {data}; stop it with `kill -INT {pid}`."
            )
        time.sleep(0.05)
    end_strays(data, uid)
    if is_alive(pid):  # and no server of this folder
        with contextlib.suppress(FileNotFoundError):
            (data / "postmaster.pid").unlink()


def _postmaster_pid(data: Path) -> int | None:
    try:
        return abs(int((data / "postmaster.pid").read_text().split()[0]))
    except (FileNotFoundError, ValueError, IndexError):
        return None


def _serves(pid: int, data: Path, uid: int) -> bool:
    """Whether the process is the server of this folder: a postmaster works inside its data folder."""
    return is_alive(pid) and (not HAS_PROC or runs_in(pid, "postgres", data, uid))  # nothing to ask: believe the file
