"""What can be known of a whole file before its first row is sent: whether its columns are the stream's."""

from __future__ import annotations

import contextlib
import csv
import re
from collections.abc import Sequence

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.errors import PermanentError

DELIMITERS = {",": ",", ";": ";", "\t": r"\t", "|": "|", ":": ":"}  # and how a shell takes them
_NUMBER_OR_TIME = re.compile(r"[+-]?[0-9][0-9.,:TtZz+ -]*([eE][+-]?[0-9]+)?\Z")
_COMMA_NUMBER = re.compile(r"[+-]?[0-9][0-9.]*,[0-9]+\Z")
_THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]+)?\Z")
_SHOWN = 200


def required(spec: StreamSpec) -> list[str]:
    """The fields that an event of the stream has to have."""
    dimensions = [name for name, dimension in spec.dimensions.items() if dimension.default is None]
    measures = [name for name, measure in spec.measures.items() if measure.required]
    return [*dimensions, *measures, *(["event_id"] if spec.unique_event_id else [])]


def ask_columns(columns: Sequence[str], spec: StreamSpec, name: str) -> None:
    """Raises PermanentError when no event made of these columns could be one of the stream."""
    twice = sorted({column for column in columns if list(columns).count(column) > 1})
    if twice or not all(columns):
        which = f"twice ({twice[0]!r})" if twice else "not at all"
        raise PermanentError(f"{name}: the header names a column {which}; give each a name of its own.")
    if not spec.fields.intersection(columns):
        has = ", ".join(map(repr, columns)) or "none"
        raise PermanentError(f"{name} has no column of the stream {spec.name}: it has {_cut(has)}; {_wanted(spec)}.")
    missing = [field for field in required(spec) if field not in columns]
    if missing:
        alike = {column.strip().lower(): column for column in columns if column not in spec.fields}
        names = ", ".join(f"{field} (there is {alike[field]!r})" if field in alike else field for field in missing)
        raise PermanentError(f"{name} lacks what every event of {spec.name} has to have: {names}; {_wanted(spec)}.")


def ask_header(lines: Sequence[str], delimiter: str, spec: StreamSpec, name: str) -> None:
    """`ask_columns` of a CSV's first lines; says when it is the delimiter, or a missing header, that is to blame."""
    columns = header_of(lines, delimiter)
    found, best = max((_known(lines, each, spec), each) for each in DELIMITERS)
    if found > _known(lines, delimiter, spec) and set(required(spec)) - set(columns):
        raise PermanentError(
            f"{name}: its columns are separated by {best!r} and not by {delimiter!r}; "
            f"pass --delimiter '{DELIMITERS[best]}'."
        )
    text = lines[0].strip() if lines else ""
    if text[:1] in ("{", "["):
        raise PermanentError(f"{name} is JSON and not CSV; pass --format ndjson.")
    if not found and any(map(_NUMBER_OR_TIME.match, columns)):
        raise PermanentError(
            f"{name} has no header: its first line is {_cut(text)!r}; put a line of column names before it, "
            f"{_wanted(spec)}."
        )
    ask_columns(columns, spec, name)


def ask_numbers(lines: Sequence[str], delimiter: str, spec: StreamSpec, name: str) -> None:
    """Raises PermanentError when the first rows of a CSV have commas in their numbers."""
    header = header_of(lines, delimiter)
    rows = [fields for fields in _split(lines[1:], delimiter) if len(fields) == len(header)]
    for at, column in enumerate(header):
        numbers = [fields[at].strip() for fields in rows] if column in spec.measures else []
        commas = [number for number in numbers if _COMMA_NUMBER.match(number) or _THOUSANDS.match(number)]
        if not commas or any("." in number and "," not in number for number in numbers):
            continue
        decimal = next((number for number in commas if not _THOUSANDS.match(number)), None)
        if decimal:
            raise PermanentError(
                f"{name}: the numbers of {column} have decimal commas, such as {decimal!r}; pass --decimal-comma."
            )
        raise PermanentError(
            f"{name}: the numbers of {column} have commas, such as {commas[0]!r}; write them without, or pass "
            "--decimal-comma where fractions begin with one."
        )


def looks_like_csv(line: str, spec: StreamSpec) -> bool:
    """Whether a line names columns of the stream."""
    return any(_known([line], delimiter, spec) for delimiter in DELIMITERS)


def header_of(lines: Sequence[str], delimiter: str) -> list[str]:
    """The names of the columns."""
    return [column.strip() for column in next(iter(_split(lines, delimiter)), [])]


def _known(lines: Sequence[str], delimiter: str, spec: StreamSpec) -> int:
    return len(spec.fields.intersection(header_of(lines, delimiter)))


def _split(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    """The rows up to the first that is not CSV."""
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):
        rows.extend(csv.reader(lines, delimiter=delimiter, strict=True))
    return rows


def _wanted(spec: StreamSpec) -> str:
    optional = sorted(spec.fields.difference(required(spec)))
    return f"{spec.name} has {', '.join(required(spec))}" + (f" and may have {', '.join(optional)}" if optional else "")


def _cut(text: str) -> str:
    shown = text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
    return "".join(sign if sign.isprintable() else "?" for sign in shown)
