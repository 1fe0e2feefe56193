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
_PANDAS = re.compile(r"(__index_level_[0-9]+__|Unnamed: [0-9]+|level_[0-9]+|index)\Z")
_INDEX = " (pandas' index: write the file with index=False)"
_PERHAPS = _INDEX.replace("(", "(perhaps ")
_SHOWN = 200


def required(spec: StreamSpec) -> list[str]:
    """The fields that an event of the stream has to have."""
    dimensions = [name for name, dimension in spec.dimensions.items() if dimension.default is None]
    measures = [name for name, measure in spec.measures.items() if measure.required]
    return [*dimensions, *measures, *(["event_id"] if spec.unique_event_id else [])]


def ask_columns(columns: Sequence[str], spec: StreamSpec, name: str) -> None:
    """Raises PermanentError when no event made of these columns could be one of the stream."""
    if not all(columns) and spec.fields.intersection(columns):
        nameless = [number for number, column in enumerate(columns, 1) if not column]
        index = _PERHAPS if nameless[0] == 1 else ""
        raise PermanentError(f"{name}: column {nameless[0]} has no name{index}; give it one, or take it out.")
    twice = sorted({column for column in columns if column and list(columns).count(column) > 1})
    if twice:
        raise PermanentError(f"{name}: the header names a column twice ({twice[0]!r}); give each a name of its own.")
    if not spec.fields.intersection(columns):
        has = ", ".join(map(repr, columns)) or "none"
        raise PermanentError(f"{name} has no column of the stream {spec.name}: it has {_cut(has)}; {_wanted(spec)}.")
    missing = [field for field in required(spec) if field not in columns]
    if missing:
        alike = {column.strip().lower(): column for column in columns if column not in spec.fields}
        names = ", ".join(f"{field} (there is {alike[field]!r})" if field in alike else field for field in missing)
        raise PermanentError(f"{name} lacks what every event of {spec.name} has to have: {names}; {_wanted(spec)}.")
    others = [column for column in columns if column not in spec.fields]
    if others and spec.policies.unknown_fields == "reject":
        index = (_INDEX if others[0].startswith("__") else _PERHAPS) if _PANDAS.match(others[0]) else ""
        raise PermanentError(
            f"{name} has {_cut(', '.join(map(repr, others)))}{index}, which {spec.name} does not declare and so "
            f"refuses; leave that out of the file: {_wanted(spec)}."
        )


def ask_header(lines: Sequence[str], delimiter: str, spec: StreamSpec, name: str, before: int = 0) -> None:
    """`ask_columns` of a CSV's first lines; says when it is the delimiter, or a missing header, that is to blame.

    `before` is how many lines of the file are before these.
    """
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
    if not found and (below := _header_below(lines, spec)):
        raise PermanentError(
            f"{name}: its header seems to be line {before + below + 1}, and {_cut(text)!r} stands before it; take out "
            f"the lines before it, as `tail -n +{before + below + 1}` does."
        )
    if not found and any(map(_NUMBER_OR_TIME.match, columns)):
        raise PermanentError(
            f"{name} has no header: its first line is {_cut(text)!r}; put a line of column names before it, "
            f"{_wanted(spec)}."
        )
    ask_columns(columns, spec, name)


def beyond(fields: Sequence[str], columns: int) -> str:
    """What to say of cells behind the last column with a name, as spreadsheets leave them, that are not empty."""
    at = next((at for at, field in enumerate(fields) if at >= columns and field.strip()), None)
    return "" if at is None else f"column {at + 1} has no name and holds {_cut(fields[at])!r}"


def ask_blanks(lines: Sequence[str], delimiter: str, spec: StreamSpec, name: str) -> None:
    """Raises PermanentError when all texts of a column begin or end with a blank: ` m` would be another than `m`."""
    header = header_of(lines, delimiter)
    rows = [fields for fields in _split(lines[1:], delimiter) if len(fields) >= len(header)]
    for at, column in enumerate(header):
        texts = [fields[at] for fields in rows if fields[at].strip()]
        if not texts or (column not in spec.dimensions and column != "event_id"):
            continue
        for where, is_blank in (("begins", str.lstrip), ("ends", str.rstrip)):
            if all(is_blank(text) != text for text in texts):
                raise PermanentError(
                    f"{name}: every {column} {where} with a blank, such as {_cut(texts[0])!r}, which would be part of "
                    f"it; take the blanks beside {delimiter!r} out of the file."
                )


def ask_numbers(lines: Sequence[str], delimiter: str, spec: StreamSpec, name: str) -> None:
    """Raises PermanentError when the first rows of a CSV have commas in their numbers."""
    header = header_of(lines, delimiter)
    rows = [fields for fields in _split(lines[1:], delimiter) if len(fields) >= len(header)]
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
    """The names of the columns, up to the last that has one."""
    names = [column.strip() for column in next(iter(_split(lines, delimiter)), [])]
    while names and not names[-1]:
        names.pop()
    return names


def _header_below(lines: Sequence[str], spec: StreamSpec) -> int:
    """How many lines are before the first that names what the stream needs; 0 where none does."""
    needed = set(required(spec)) or spec.fields
    for at, line in enumerate(lines):
        if any(needed.issubset(header_of([line], delimiter)) for delimiter in DELIMITERS):
            return at
    return 0


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
