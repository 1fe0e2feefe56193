"""What a handler answers, and what a request holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline_platform.local.price_server.truth import Truth


@dataclass(frozen=True)
class Asked:
    """A request: where, what, and the truth and time to answer from."""

    path: str
    query: Mapping[str, str]
    truth: Truth
    now: datetime


@dataclass(frozen=True)
class Reply:
    """An answer; `body` is JSON data, or text as it is."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1
