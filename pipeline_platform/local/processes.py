"""A service and one running process of it: spawned in a session of its own, its output read line by line."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import getpid
from pathlib import Path
from typing import IO

from pipeline_platform.errors import PlatformError
from pipeline_platform.local.accounts import Account
from pipeline_platform.local.process_table import kill_session, session_members, start_mark
from pipeline_platform.local.reaper import Reaper, Target

SHIM = Path(__file__).with_name("shim.py")
LINE_BYTES = 64 * 1024
TAIL_LINES = 20


@dataclass(frozen=True)
class Service:
    """A program to keep running. Times are seconds.

    `ready` answers whether it does its work; it must return within a few seconds and not raise. `env` None inherits
    ours; a function is asked at every start, for what steps before it have made. A `critical` service is not restarted:
    its death ends the whole stack. `clean_up` ends what of it may live on outside its session; it is called after every
    end. No other service needs a `leaf`: leaves stop at the same time. An `audited` one prints lines for the audit.
    """

    name: str
    argv: Sequence[str]
    ready: Callable[[], bool]
    env: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None
    account: Account | None = None
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout: float = 10.0
    start_timeout: float = 60.0
    critical: bool = False
    clean_up: Callable[[], None] | None = None
    leaf: bool = False
    audited: bool = False


@dataclass(frozen=True)
class Step:
    """Something to do once between services, such as migrations after the database is ready."""

    name: str
    run: Callable[[], None]


class Child:
    """One process of a service, with everything it forks.

    Make it in a thread that lives as long as the supervisor does, best the main one: the kernel's parent-death signal
    goes by the thread that forked.
    """

    def __init__(self, service: Service, reaper: Reaper, on_line: Callable[[str], None]) -> None:
        self.service = service
        self._reaper = reaper
        self._on_line = on_line
        self._asked = False
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        who = service.account
        switch = [str(who.uid), str(who.gid)] if who else ["-1", "-1"]
        shim = [sys.executable, "-I", "-S", str(SHIM), str(reaper.register_fd), str(getpid())]
        try:
            self._process = subprocess.Popen(
                [*shim, str(int(service.stop_signal)), str(service.stop_timeout), *switch, *service.argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=service.env() if callable(service.env) else service.env,
                cwd=service.cwd,
                start_new_session=True,
                pass_fds=(reaper.register_fd,),
            )
        except OSError as error:
            raise PlatformError(f"{service.name} cannot be started: {error}") from error
        self.pid = self._process.pid
        self.started = start_mark(self.pid)
        reaper.add(Target(self.pid, service.stop_signal, service.stop_timeout))
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name=f"log-{service.name}", daemon=True
        )
        self._reader.start()

    def exit_code(self) -> int | None:
        """None while it runs; negative for a signal."""
        return self._process.poll()

    def ask(self) -> None:
        """Ask its leader to stop, and do not wait; a second time nothing is asked."""
        if not self._asked and self.exit_code() is None:
            self._process.send_signal(self.service.stop_signal)
        self._asked = True

    def stop(self, impatient: Callable[[], bool], clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        """Ask its leader to stop, wait `stop_timeout` unless `impatient`, then kill whatever is left of the session."""
        self.ask()
        deadline = clock() + self.service.stop_timeout
        while self.exit_code() is None and clock() < deadline and not impatient():
            sleep(0.02)
        self.sweep()

    def sweep(self) -> None:
        """Kill what is left of the session, so that no grandchild of a dead child lives on."""
        kill_session(self.pid)
        self._process.wait()
        if self.service.clean_up:
            self.service.clean_up()
        deadline = time.monotonic() + 2
        while session_members(self.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        self._reaper.forget(self.pid)
        self._reader.join(timeout=1)  # its last words

    def _read(self, output: IO[bytes]) -> None:
        with output:
            while data := output.readline(LINE_BYTES):
                line = data.decode(errors="replace").rstrip("\r\n")
                self.tail.append(line)
                # Our own output may be closed (`up | head`); the child's has to be drained all the same.
                with contextlib.suppress(OSError, ValueError):
                    self._on_line(line)
