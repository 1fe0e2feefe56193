"""Trying parts of a batch in processes of their own: `python -m pipeline_platform.orchestration.ingest.rehearsal`.

A line that crashes, hangs or kills whoever processes it must not do so to the run. The run gives the batch to this
program once, as pickled `Task`; for each range of lines that it names the program forks, and the child does with it
what the run would do, up to a load that is rolled back. What became of the child is the answer.

The answers are JSON, a line each: {"outcome": "good" | "bad" | "transient" | "permanent", "message": ...}.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from pipeline_platform.core import transforms, validation
from pipeline_platform.core.entries import Entry
from pipeline_platform.core.events import decode
from pipeline_platform.core.isolation import cut
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError, PoisonError, TransientError
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.load import ReadyBatch, load

SECONDS = 60.0
_ERRORS = {"transient": TransientError, "permanent": PermanentError}


@dataclass(frozen=True)
class Task:
    """What is rehearsed: the batch and where it would be loaded."""

    spec: StreamSpec
    entries: Sequence[Entry]
    batch_id: int
    warehouse_url: str
    seconds: float = SECONDS  # a trial that takes longer is ended, and its lines are bad


class Rehearsal:
    """The run's side of the program."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def trial(self, start: int, end: int) -> str | None:
        """Rehearses the lines [start, end); None when that went well, else what it met with.

        Raises TransientError or PermanentError when it says nothing about the lines.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps([start, end]).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except OSError:
            line = b""
        if not line:
            raise TransientError("The process that tries a batch's parts has ended; the batch is tried again.")
        answer = json.loads(line)
        if (error := _ERRORS.get(answer["outcome"])) is not None:
            raise error(answer["message"])
        return None if answer["outcome"] == "good" else str(answer["message"])


@contextmanager
def rehearsing(task: Task) -> Iterator[Rehearsal]:
    """Starts the program for one batch; it ends with the block."""
    process = subprocess.Popen([sys.executable, "-m", __name__], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdin is not None
        data = pickle.dumps(task)
        try:
            process.stdin.write(struct.pack("!Q", len(data)) + data)
            process.stdin.flush()
        except OSError:
            raise TransientError("The process that tries a batch's parts did not start.") from None
        yield Rehearsal(process)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """Answers until its input ends."""
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    (size,) = struct.unpack("!Q", source.read(8))
    task: Task = pickle.loads(source.read(size))
    while line := source.readline():
        start, end = json.loads(line)
        answers.write(json.dumps(_answer(task, start, end)).encode() + b"\n")
        answers.flush()


def _answer(task: Task, start: int, end: int) -> dict[str, str]:
    """Forks a child for the trial, and tells what became of it. This process has one thread, so that it may fork."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _perform(task, start, end, writing)
    os.close(writing)
    status = _status(pid, time.monotonic() + task.seconds)
    with os.fdopen(reading, "rb") as said:
        words = said.read()
    if status is None:
        return {"outcome": "bad", "message": f"Processing it did not end within {task.seconds:.0f} s."}
    if os.WIFSIGNALED(status):
        return {"outcome": "bad", "message": f"Processing it ended the process ({_signal(os.WTERMSIG(status))})."}
    if not words:
        return {"outcome": "bad", "message": f"Processing it ended the process (exit {os.WEXITSTATUS(status)})."}
    answer: dict[str, str] = json.loads(words)
    return answer


def _status(pid: int, until: float) -> int | None:
    """How the child ended; None when it had to be killed at `until`."""
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def _perform(task: Task, start: int, end: int, writing: int) -> NoReturn:
    """The trial, in the child."""
    answer = {"outcome": "good", "message": ""}
    try:
        _rehearse(task, cut(task.entries, start, end))
    except TransientError as error:
        answer = {"outcome": "transient", "message": str(error)}
    except PoisonError as error:
        answer = {"outcome": "bad", "message": str(error)}
    except PermanentError as error:
        answer = {"outcome": "permanent", "message": str(error)}
    except BaseException as error:  # noqa: BLE001  whatever it is, it is what the lines led to
        answer = {"outcome": "bad", "message": f"{type(error).__name__}: {error}"[:500]}
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)


def _rehearse(task: Task, entries: Sequence[Entry]) -> None:
    """All that the run does, undone at the end."""
    valid = validation.validate(decode(entries, task.spec), entries, task.spec)
    left = transforms.drop_negatives(valid.columns, task.spec)
    ready = ReadyBatch(
        batch_id=task.batch_id,
        run_id="rehearsal",
        entries=entries,
        columns=left.columns,
        aggregates=transforms.aggregate(left.columns),
        rejections=valid.rejections,
        negative_entry=left.dropped_entry,
        late=valid.late,
        negative_ids=left.dropped_ids,
    )
    load(connect(task.warehouse_url, pool_size=1, application="pipeline rehearsal"), task.spec, ready, rehearse=True)


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


if __name__ == "__main__":
    main()
