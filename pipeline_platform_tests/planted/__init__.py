"""Faults planted into processes of a stack under test: a folder for PYTHONPATH, whose `sitecustomize` plants them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline_platform.core import events
from pipeline_platform.core.entries import Entry
from pipeline_platform.core.events import Decoded
from pipeline_platform.core.streams import StreamSpec

FOLDER = Path(__file__).parent
_decode = events.decode


def poisonous(entries: Sequence[Entry], spec: StreamSpec) -> Decoded:
    """`decode`, which a line with "poison: raise", or kill, hang or memory in its place, is too much for."""
    for entry in entries:
        if b"poison: raise" in entry.data:
            raise ZeroDivisionError("planted: this line crashes the decoder")
        if b"poison: kill" in entry.data:
            os.kill(os.getpid(), signal.SIGKILL)
        if b"poison: memory" in entry.data:
            raise MemoryError("planted")
        if b"poison: hang" in entry.data:
            time.sleep(3600)
    return _decode(entries, spec)
