"""Slows down a sensor that fails: without its interval it would fail twenty times a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from typing import Any

from dagster._core.remote_representation.external import RemoteSensor
from dagster_shared.error import SerializableErrorInfo

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds; the longest is the stock loop's


class PatientExecutor(Executor):
    """Hands ticks to another executor. After a failed one its thread waits, so that Dagster finds it in flight.

    `wait` takes seconds and returns early when the process ends.
    """

    def __init__(self, executor: Executor, wait: Callable[[float], object]) -> None:
        self._executor, self._wait = executor, wait
        self._failures: Counter[str] = Counter()

    def submit(self, tick: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Starts a tick; Dagster passes its sensor among the arguments."""
        return self._executor.submit(self._run, tick, *args, **kwargs)

    def _run(self, tick: Callable[..., Sequence[object]], *args: Any, **kwargs: Any) -> Sequence[object]:
        name = next(value.selector_id for value in args if isinstance(value, RemoteSensor))
        result = tick(*args, **kwargs)
        if any(isinstance(part, SerializableErrorInfo) for part in result):
            self._failures[name] += 1
            self._wait(pause(self._failures[name]))
        else:
            self._failures.pop(name, None)
        return result


def pause(failures: int) -> float:
    """Seconds to wait after so many failures in a row, at least one."""
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(failures - 1, 10))
