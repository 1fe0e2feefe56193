"""What a check of `doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["ok", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """One line: how bad it is, what was looked at, what there is and what to do about it."""

    level: Level
    check: str
    message: str
