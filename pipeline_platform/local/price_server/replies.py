"""What a handler answers, and what a request holds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pipeline_platform.local.price_server.truth import Truth


@dataclass(frozen=True)
class Asked:
    """A request: where, what, and the truth and time to answer from.

    `last_trades`: when a pair that nobody trades any more was traded last; all others are traded now. `unknown`:
    symbols that Binance does not know any more.
    """

    path: str
    query: Mapping[str, str]
    truth: Truth
    now: datetime
    last_trades: Mapping[str, datetime] = field(default_factory=dict)
    unknown: Collection[str] = ()

    def traded(self, symbol: str) -> datetime:
        """When the symbol's last trade was."""
        return self.last_trades.get(symbol, self.now)


@dataclass(frozen=True)
class Reply:
    """An answer; `body` is JSON data, or text as it is."""

    body: Any
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1
