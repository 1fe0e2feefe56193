"""The truth behind the price server: a walk that is a pure function of seed, symbol and time.

The price at a time is a base plus noise of many octaves, each a straight line between hashed values; so any range can
be computed at once, and every request for it gives the same. Between two knots, five minutes apart, the price is a
straight line: the extremes of every interval are at knots, and the candles of all intervals agree with each other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

import numpy as np
import numpy.typing as npt

from pipeline_platform.core.prices import EPOCH, Candle, Interval
from pipeline_platform.core.time_ranges import TimeRange

Ticks = npt.NDArray[np.int64]

KNOT = 5  # minutes
OCTAVES = 18  # the longest swing takes 2**17 knots, 455 days
SWING = 0.6  # the price stays within 0.4 and 1.6 of its base
DIGITS = 8  # of volumes, after the point

# Bases: about what they cost in 2026. Digits: how many the price has after the point.
BASES: dict[str, tuple[int, int]] = {
    "BTC": (60_000, 2),
    "ETH": (3_000, 2),
    "SOL": (150, 3),
    "XRP": (1, 5),
    "ADA": (1, 5),
    "DOGE": (1, 6),
    "DOT": (8, 4),
    "LTC": (90, 3),
    "LINK": (15, 4),
    "AVAX": (35, 4),
    "BNB": (550, 2),
    "TRX": (1, 6),
    "XLM": (1, 6),
    "ATOM": (9, 4),
    "UNI": (10, 4),
    "AAVE": (120, 3),
    "ALGO": (1, 6),
    "NEAR": (6, 4),
    "FIL": (6, 4),
    "EUR": (1, 5),
    "GBP": (1, 5),
}


@dataclass(frozen=True)
class Truth:
    """Prices of the currencies in BASES, in dollars, for all times."""

    seed: int = 20

    def ticks(self, currency: str, minutes: Ticks) -> Ticks:
        """The price at each minute since 1970, in units of its last digit."""
        base, digits = BASES[currency]
        knots, rest = np.divmod(minutes, KNOT)
        first, last = int(knots.min()), int(knots.max()) + 1
        level = self._levels(currency, first, last + 1)
        here = level[knots - first]
        there = level[knots - first + 1]
        price = (here + (there - here) * (rest / KNOT)) * (base * 10**digits)
        ticks: Ticks = np.rint(price).astype(np.int64)
        return ticks

    def price(self, currency: str, at: datetime) -> Decimal:
        """The price at the minute of `at`."""
        return self.prices(currency, [at])[0]

    def prices(self, currency: str, times: Sequence[datetime]) -> list[Decimal]:
        """The prices at the minutes of the times."""
        if not times:
            return []
        minutes = np.array([_minute(at) for at in times], dtype=np.int64)
        return [self._decimal(currency, ticks) for ticks in self.ticks(currency, minutes).tolist()]

    def candles(
        self, source: str, symbol: str, currency: str, interval: Interval, wanted: TimeRange, now: datetime
    ) -> list[Candle]:
        """The candles that open in the range and not after `now`; the last one may be open, and is of the time up to
        `now` then."""
        opened = interval.ceiling(wanted.start)
        end = min(wanted.end, now + timedelta(microseconds=1))
        if opened >= end:
            return []
        count = TimeRange(opened, end).candles(interval)
        length = interval.seconds // 60
        step = min(KNOT, length)
        latest = _minute(now)
        first = _minute(opened)
        marks = first + step * np.arange(count * length // step + 1, dtype=np.int64)
        prices = self.ticks(currency, np.minimum(marks, latest))
        rows = prices[:-1].reshape(count, -1)
        after = prices[1:].reshape(count, -1)
        highs = np.maximum(rows.max(axis=1), after.max(axis=1))
        lows = np.minimum(rows.min(axis=1), after.min(axis=1))
        volumes = self._volumes(currency, marks[:-1], step, latest).reshape(count, -1).sum(axis=1)
        columns = (each.tolist() for each in (rows[:, 0], highs, lows, after[:, -1], volumes))
        candles = []
        for number, (open_, high, low, close, volume) in enumerate(zip(*columns, strict=True)):
            at = opened + number * interval.length
            candles.append(
                Candle(
                    source,
                    symbol,
                    interval,
                    at,
                    open=self._decimal(currency, open_),
                    high=self._decimal(currency, high),
                    low=self._decimal(currency, low),
                    close=self._decimal(currency, close),
                    volume=Decimal(volume).scaleb(-DIGITS),
                    closed=at + interval.length <= now,
                )
            )
        return candles

    def _levels(self, currency: str, first: int, end: int) -> npt.NDArray[np.float64]:
        """Price over base at the knots first, ..., end - 1. Sums and products only: the same bits everywhere."""
        knots = np.arange(first, end, dtype=np.int64)
        level = np.ones(len(knots))
        scale = SWING / sum(2 ** (octave / 2) for octave in range(OCTAVES))
        for octave in range(OCTAVES):
            nodes = knots >> octave
            start = int(nodes[0])
            values = _noise(self._key(currency, octave), np.arange(start, int(nodes[-1]) + 2, dtype=np.int64))
            here, there = values[nodes - start], values[nodes - start + 1]
            share = (knots & ((1 << octave) - 1)) / float(1 << octave)
            level += (here + (there - here) * share) * (scale * 2 ** (octave / 2))
        return level

    def _volumes(self, currency: str, minutes: Ticks, step: int, latest: int) -> Ticks:
        """What is traded in `step` minutes from each minute on, up to the latest one, in units of 1e-8."""
        a_minute = np.rint((_noise(self._key(currency, -1), minutes // KNOT) + 1.5) * 10**7).astype(np.int64)
        traded: Ticks = a_minute * np.clip(latest - minutes, 0, step)
        return traded

    def _key(self, currency: str, octave: int) -> int:
        digest = hashlib.blake2b(f"{self.seed} {currency} {octave}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big")

    def _decimal(self, currency: str, ticks: int) -> Decimal:
        return Decimal(ticks).scaleb(-BASES[currency][1])


def _minute(at: datetime) -> int:
    return (at - EPOCH) // timedelta(minutes=1)


def _noise(key: int, numbers: Ticks) -> npt.NDArray[np.float64]:
    """A number in [-1, 1) for each; splitmix64 over key and number."""
    with np.errstate(over="ignore"):
        mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-52 - 1.0
