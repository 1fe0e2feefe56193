"""Becomes a supervised program: registers with the reaper, drops to its account, ties its life to the parent's, execs.

A file of its own, run with `python -I -S`, because the order matters and none of it is safe between fork and exec in a
process with threads: registering comes first so that the reaper never misses a child, and PR_SET_PDEATHSIG comes after
setuid because a change of user clears it. It imports nothing of this package: it costs 15 ms at every start.

Usage: shim.py REGISTER_FD PARENT STOP_SIGNAL GRACE UID GID PROGRAM [ARGUMENT...]      (UID -1: keep the user)
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    register, parent, stop_signal, grace, uid, gid, *argv = arguments
    fd = int(register)
    os.set_inheritable(fd, False)
    with contextlib.suppress(OSError):  # a killed reaper; the supervisor starts another and registers us there
        os.write(fd, f"+ {os.getpid()} {stop_signal} {grace}\n".encode())
    if int(uid) >= 0:
        os.setgroups([])
        os.setgid(int(gid))
        os.setuid(int(uid))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(stop_signal), 0, 0, 0)
    if os.getppid() != int(parent):
        sys.exit(1)  # the parent ended before the kernel knew to tell us
    try:
        os.execvp(argv[0], argv)
    except OSError as error:
        sys.exit(f"{argv[0]} cannot be started: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
