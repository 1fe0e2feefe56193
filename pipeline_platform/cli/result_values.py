"""Values of a query as PostgreSQL writes them: Python has no year 10000, no endless time, no interval of months."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.types.array import ArrayLoader

_TYPES = psycopg.postgres.types
NUMBERS = frozenset(_TYPES[name].oid for name in ("int2", "int4", "int8", "oid", "float4", "float8", "numeric"))
_NO_JSON = ("NaN", "Infinity", "-Infinity")  # numbers that JSON does not have: texts, as PostgreSQL's to_json has them


@dataclass(frozen=True)
class Column:
    """A column of a result."""

    name: str
    number: bool = False


class _Text(Loader):
    def load(self, data: Buffer) -> Any:
        return bytes(data).decode("utf-8", "backslashreplace")


class _Number(_Text):
    def load(self, data: Buffer) -> Any:
        text = super().load(data)
        return text if text in _NO_JSON else orjson.Fragment(text)


class _Truth(Loader):
    def load(self, data: Buffer) -> bool:
        return bytes(data) == b"t"


class _Json(_Text):
    def load(self, data: Buffer) -> Any:
        return orjson.Fragment(" ".join(super().load(data).splitlines()))  # `json` keeps the lines that it came in


def as_text() -> AdaptersMap:
    """Every value as its text."""
    adapters = AdaptersMap(types=_TYPES)
    adapters.register_loader(0, _Text)  # the loader of types that have none
    return adapters


def as_json() -> AdaptersMap:
    """Numbers, truths, JSON and arrays as JSON has them; every other value as its text."""
    adapters = as_text()
    for oid in NUMBERS:
        adapters.register_loader(oid, _Number)
    adapters.register_loader("bool", _Truth)
    for name in ("json", "jsonb"):
        adapters.register_loader(name, _Json)
    for info in _TYPES:
        if info.array_oid:
            named = {"base_oid": info.oid, "delimiter": info.delimiter.encode()}
            adapters.register_loader(info.array_oid, type("_Array", (ArrayLoader,), named))
    return adapters
