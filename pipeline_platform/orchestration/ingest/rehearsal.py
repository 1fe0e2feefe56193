"""Trying parts of a batch in processes of their own: `python -m pipeline_platform.orchestration.ingest.rehearsal`.

A line that crashes, hangs or kills whoever processes it must not do so to the run. The run gives the batch to this
program once, as pickled `Task`; for each range of lines that it names the program forks, and the child does with it
what the run would do, before the load, or up to a load that is rolled back. What became of the child is the answer.

Questions and answers are JSON, a line each: {"lines": [start, end], "load": ...}, answered by {"outcome": "good" |
"bad" | "transient" | "permanent", "message": ...}; or {"leave_out": [[start, end], ...]}, which has no answer.
"""

from __future__ import annotations

import json
import os
import pickle
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from pipeline_platform.core import transforms, validation
from pipeline_platform.core.entries import Entry
from pipeline_platform.core.events import decode
from pipeline_platform.core.failures import FailureKind, of_os_error
from pipeline_platform.core.isolation import Bad, cut, without
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError, PoisonError, TransientError
from pipeline_platform.warehouse.engine import connect
from pipeline_platform.warehouse.load import ReadyBatch
from pipeline_platform.warehouse.load import load as load_batch

SECONDS, LINES_A_SECOND = 5.0, 10_000  # a tenth of what a slow machine does
LONGEST = 60.0
LOAD_SECONDS = 60.0
_ERRORS = {"transient": TransientError, "permanent": PermanentError}


@dataclass(frozen=True)
class Task:
    """What is rehearsed: the batch and where it would be loaded."""

    spec: StreamSpec
    entries: Sequence[Entry]
    batch_id: int
    warehouse_url: str
    load_seconds: float = LOAD_SECONDS
    seconds: float = SECONDS  # and one for each 10,000 lines: a trial that computes for longer is ended as bad

    def limit(self, lines: int) -> float:
        """How many seconds a trial of so many lines may take until its load, which says nothing about the lines."""
        return min(self.seconds + lines / LINES_A_SECOND, LONGEST)


class Rehearsal:
    """The run's side of the program."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def processed(self, start: int, end: int) -> str | None:
        """Rehearses all but the load of the lines [start, end); None when that went well, else what it met with.

        Raises TransientError or PermanentError when it says nothing about the lines.
        """
        return self._trial(start, end, load=False)

    def loaded(self, start: int, end: int) -> str | None:
        """The same with the load: some ten times as slow."""
        return self._trial(start, end, load=True)

    def leave_out(self, bad: Sequence[Bad]) -> None:
        """From now on there is nothing in the place of these lines."""
        self._say({"leave_out": [[part.start, part.end] for part in bad]})

    def _say(self, question: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with suppress(OSError):  # the answer will be missing, too
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()

    def _trial(self, start: int, end: int, *, load: bool) -> str | None:
        assert self._process.stdout is not None
        self._say({"lines": [start, end], "load": load})
        line = self._process.stdout.readline()
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
    # Both touch nothing, and import what each child would have to import for itself.
    _ready(task, ())
    connect(task.warehouse_url).dispose()
    while line := source.readline():
        question = json.loads(line)
        if (ranges := question.get("leave_out")) is not None:
            entries, _ = without(task.entries, [Bad(start, end, "") for start, end in ranges])
            task = replace(task, entries=entries)
            continue
        answer = _answer(task, *question["lines"], load=question["load"])
        answers.write(json.dumps(answer).encode() + b"\n")
        answers.flush()


def _answer(task: Task, start: int, end: int, *, load: bool) -> dict[str, str]:
    """Forks a child for the trial, and tells what became of it. This process has one thread, so that it may fork."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        os.close(reading)
        _perform(task, start, end, writing, load=load)
    os.close(writing)
    limit = task.limit(end - start)
    try:
        words, ended = _words(reading, limit, task.load_seconds)
    finally:
        os.close(reading)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    if not ended and words:
        # Of many lines it may be too much, of a single one it is the warehouse's doing.
        outcome = "bad" if end - start > 1 else "transient"
        return {"outcome": outcome, "message": f"Its load did not end within {task.load_seconds:.0f} s."}
    if not ended:
        return {"outcome": "bad", "message": f"Processing it did not end within {limit:.0f} s."}
    if os.WIFSIGNALED(status):
        return {"outcome": "bad", "message": f"Processing it ended the process ({_signal(os.WTERMSIG(status))})."}
    if not words.strip():
        return {"outcome": "bad", "message": f"Processing it ended the process (exit {os.WEXITSTATUS(status)})."}
    answer: dict[str, str] = json.loads(words)
    return answer


def _words(reading: int, seconds: float, load_seconds: float) -> tuple[bytes, bool]:
    """What the child says, and whether it ended in time: `seconds` for its first word, `load_seconds` for the load."""
    said, until = b"", time.monotonic() + seconds
    while select.select([reading], [], [], max(0.0, until - time.monotonic()))[0]:
        part = os.read(reading, 65_536)
        if not part:
            return said, True
        if not said:
            until = time.monotonic() + load_seconds
        said += part
    return said, False


def _perform(task: Task, start: int, end: int, writing: int, *, load: bool) -> NoReturn:
    """The trial, in the child."""
    answer = {"outcome": "good", "message": ""}
    try:
        ready = _ready(task, cut(task.entries, start, end))
        if load:
            os.write(writing, b"\n")  # from here on it is the warehouse that takes its time
            engine = connect(task.warehouse_url, pool_size=1, application="pipeline rehearsal")
            load_batch(engine, task.spec, ready, rehearse=True)
    except TransientError as error:
        answer = {"outcome": "transient", "message": str(error)}
    except PoisonError as error:
        answer = {"outcome": "bad", "message": str(error)}
    except PermanentError as error:
        answer = {"outcome": "permanent", "message": str(error)}
    except (OSError, MemoryError) as error:
        machine = isinstance(error, MemoryError) or of_os_error(error) is FailureKind.TRANSIENT
        outcome = "transient" if machine and end - start == 1 else "bad"
        answer = {"outcome": outcome, "message": f"{type(error).__name__}: {error}"[:500]}
    except BaseException as error:  # noqa: BLE001  whatever it is, it is what the lines led to
        answer = {"outcome": "bad", "message": f"{type(error).__name__}: {error}"[:500]}
    os.write(writing, json.dumps(answer).encode())
    os._exit(0)


def _ready(task: Task, entries: Sequence[Entry]) -> ReadyBatch:
    """All that the run does before the load."""
    valid = validation.validate(decode(entries, task.spec), entries, task.spec)
    left = transforms.drop_negatives(valid.columns, task.spec)
    return ReadyBatch(
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


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


if __name__ == "__main__":
    main()
