"""A disk of its own: an ext4 in a file, mounted through a loop device, that can be filled and have its power cut.

Needs root and loop devices; see `missing`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline_platform.local.process_table import everyone

EXT4_IOC_SHUTDOWN = 0x8004587D  # _IOR('X', 125, __u32)
NO_LOG_FLUSH = 2  # nothing more reaches the disk, not even the journal: as when the power goes
SIZE = 6 * 2**30  # of a sparse file
TOOLS = ("mkfs.ext4", "mount", "umount")


def missing() -> str:
    """What is missing for disks of one's own, as a sentence; empty when nothing is."""
    if os.geteuid() != 0:
        return "needs root: a disk of its own is made, filled and cut off"
    for tool in TOOLS:
        if not shutil.which(tool):
            return f"{tool} is missing; install e2fsprogs and util-linux"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices (/dev/loop-control); run where `modprobe loop` works"
    return ""


@dataclass(frozen=True)
class Disk:
    """An ext4 in `image`, mounted at `place`."""

    image: Path
    place: Path

    @classmethod
    def make(cls, image: Path, place: Path) -> Disk:
        """A new one, mounted. Nothing of it is kept for root: full is full."""
        with image.open("wb") as file:
            file.truncate(SIZE)
        _run("mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1", str(image))
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o755)
        disk = cls(image, place)
        disk.mount()
        place.chmod(0o755)
        return disk

    def mount(self) -> None:
        """Mounts it; after a power cut the journal is played back."""
        _run("mount", "-o", "loop", str(self.image), str(self.place))

    def unmount(self, patience: float = 30.0) -> None:
        """Unmounts it; what still works in it is killed, because the supervisor may just have started it again."""
        until = time.monotonic() + patience
        while (done := subprocess.run(["umount", str(self.place)], capture_output=True, text=True)).returncode:
            if time.monotonic() > until:
                raise AssertionError(f"{self.place} cannot be unmounted: {done.stderr}")
            self.kill_users()
            time.sleep(0.05)

    def users(self) -> list[int]:
        """The processes that work in it: servers have their data folder as working folder."""
        found = []
        for process in everyone():
            with contextlib.suppress(OSError):
                if Path(os.readlink(f"/proc/{process.pid}/cwd")).is_relative_to(self.place):
                    found.append(process.pid)
        return found

    def kill_users(self) -> None:
        """kill -9 of all of them."""
        for pid in self.users():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def cut_power(self) -> None:
        """From now on nothing reaches the disk; then the processes die, and the disk comes back as it was."""
        folder = os.open(self.place, os.O_RDONLY)
        try:
            fcntl.ioctl(folder, EXT4_IOC_SHUTDOWN, struct.pack("I", NO_LOG_FLUSH))
        finally:
            os.close(folder)
        self.kill_users()
        self.unmount()
        self.mount()

    @contextmanager
    def full(self) -> Iterator[None]:
        """Not a byte is left on it meanwhile."""
        filler = self.place / "filler"
        with filler.open("wb") as file:
            free = os.statvfs(self.place)
            with contextlib.suppress(OSError):
                os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_frsize - 2**20)
            size = file.seek(0, os.SEEK_END)
            for step in (2**16, 2**12):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), size, step)
                        size += step
            assert os.statvfs(self.place).f_bavail < 16, "the disk could not be filled"
            try:
                yield
            finally:
                filler.unlink()

    def remove(self) -> None:
        """Unmounts it; the loop device goes with it."""
        self.unmount()
        self.image.unlink()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise AssertionError(f"{' '.join(command)} failed: {done.stderr.strip()}")
