"""What the audit says of a mutation: which, of what, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_SKIPPED = frozenset({"runConfigData", "runConfigYaml", "runConfig", "body", "metadata"})  # long, and perhaps a secret
_REFUSED = (b"GrapheneUnauthorizedError", b"You do not have permission")  # where the answer has no type for it
_MOST_TEXT = 1_000
_MOST_ANSWER = 256 * 2**10


def said_of(variables: Mapping[str, Any] | None) -> str:
    """The variables as text, without run config, cut to a thousand characters."""
    return json.dumps(_without_config(variables or {}), default=str)[:_MOST_TEXT]


def outcome_of(answer: bytes) -> str:
    """`ok`, `refused` or `failed`, from Dagster's answer."""
    if len(answer) > _MOST_ANSWER:
        return "ok"
    document = json.loads(answer)
    kinds = [str(kind) for kind in _typenames(document.get("data"))]
    if "UnauthorizedError" in kinds or any(words in answer for words in _REFUSED):
        return "refused"
    bad = document.get("errors") or any(kind.endswith(("Error", "Invalid", "NotFound", "Failure")) for kind in kinds)
    return "failed" if bad else "ok"


def _typenames(value: Any, depth: int = 4) -> list[Any]:
    if isinstance(value, dict) and depth:
        inner = [found for each in value.values() for found in _typenames(each, depth - 1)]
        return [*([value["__typename"]] if "__typename" in value else []), *inner]
    if isinstance(value, list) and depth:
        return [found for each in value[:100] for found in _typenames(each, depth - 1)]
    return []


def _without_config(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _without_config(each) for name, each in value.items() if name not in _SKIPPED}
    if isinstance(value, list):
        return [_without_config(each) for each in value[:50]]
    return value
