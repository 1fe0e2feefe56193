"""A run's range of partitions: as Dagster's tags, and as the text that a ledger row has."""

from __future__ import annotations

from collections.abc import Mapping

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_TO = "..."  # between the first and the last key


def range_tags(first: str, last: str) -> dict[str, str]:
    """The tags of a run over the partitions from `first` to `last`: of candles, a rectangle."""
    return {RANGE_START: first, RANGE_END: last}


def range_text(tags: Mapping[str, str]) -> str | None:
    """The range of a run with these tags as `first...last`; its single partition as its key; None without either."""
    first, last = tags.get(RANGE_START), tags.get(RANGE_END)
    return f"{first}{_TO}{last}" if first and last else tags.get("dagster/partition")


def tags_of_text(text: str) -> dict[str, str]:
    """The tags of a run over the partitions of `range_text`."""
    return range_tags(*corners(text))


def corners(text: str) -> tuple[str, str]:
    """The first and the last partition of `range_text`."""
    first, _, last = text.partition(_TO)
    return first, last or first
