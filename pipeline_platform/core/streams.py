"""StreamSpec: a stream is declared in a YAML file, not coded.

From a spec alone come the ingest endpoint, validation, the tables, the Dagster assets and the views.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from pipeline_platform.core.names import derived_from, one_for_two, why_no_field, why_no_stream
from pipeline_platform.core.yaml_tree import YamlFile, parse_mapping, read_text
from pipeline_platform.errors import SpecError

SHIPPED = Path(__file__).resolve().parent.parent / "streams"
_DURATION = re.compile(r"([0-9]{1,12})\s*(s|m|h|d)\Z")
_LONGEST = timedelta(days=36_500)
# Each day of events is a partition, and a statement over all of them locks each and its index: ten years are as many as
# PostgreSQL has room for, several times over, where `max_locks_per_transaction` is what we start it with.
MOST_DAYS = 3_660
_SHORTEST_UNIQUE = timedelta(minutes=1)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Dimension(_Frozen):
    """A text column of low cardinality; `default` fills a missing field, without it a missing field is refused."""

    description: str = ""
    default: str | None = None
    max_length: int = Field(256, ge=1, le=1024, description="characters")

    @model_validator(mode="after")
    def _default_fits(self) -> Self:
        if self.default is not None and (len(self.default) > self.max_length or "\0" in self.default):
            raise ValueError(f"the default is longer than {self.max_length} characters or holds a NUL")
        return self


class Measure(_Frozen):
    """A float64 column. A negative value drops the event (and counts it), keeps it, or rejects it."""

    description: str = ""
    required: bool = True
    negatives: Literal["drop", "keep", "reject"] = "drop"


class Policies(_Frozen):
    """What happens to events that are odd. Durations are written `90s`, `5m`, `1h`, `30d`.

    An event older than `retention_days` or further ahead than `future_tolerance` is rejected; one that arrives more
    than `late_after` behind its own time is loaded and counted as late. With `unique_event_id`, an `event_id` is taken
    for `unique_for`.
    """

    unknown_fields: Literal["reject", "ignore"] = "reject"
    late_after: timedelta = timedelta(hours=1)
    future_tolerance: timedelta = timedelta(minutes=5)
    retention_days: int = Field(90, ge=1)
    windows: Literal["1m"] = "1m"
    unique_for: timedelta = timedelta(days=7)

    @field_validator("late_after", "future_tolerance", "unique_for", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        if isinstance(value, timedelta):
            return value
        match = _DURATION.match(value.strip()) if isinstance(value, str) else None
        if not match:
            raise ValueError("a duration is a whole number and a unit, such as 90s, 5m, 1h or 30d")
        try:
            duration = timedelta(**{_UNITS[match[2]]: int(match[1])})
        except OverflowError:
            duration = timedelta.max
        if duration > _LONGEST:
            raise ValueError(f"a duration is at most {_LONGEST.days}d")
        return duration


class StreamSpec(_Frozen):
    """One declared stream: its dimensions, measures and policies."""

    name: str
    description: str = ""
    dimensions: dict[str, Dimension] = Field(min_length=1, max_length=16)
    measures: dict[str, Measure] = Field(min_length=1, max_length=32)
    policies: Policies = Policies()
    unique_event_id: bool = Field(False, strict=True)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if why := why_no_stream(value):
            raise ValueError(why)
        return value

    @field_validator("dimensions", "measures", mode="before")
    @classmethod
    def _shorthand(cls, value: object) -> object:
        """Lets `dimensions: [source, metric]` stand for fields without options, and `source:` for `source: {}`."""
        if isinstance(value, list):
            if twice := [name for name, count in Counter(map(_text, value)).items() if count > 1]:
                raise ValueError(f"{twice[0]!r} is given twice")
            return {name: {} for name in value}
        if isinstance(value, dict):
            return {_text(name): options if options is not None else {} for name, options in value.items()}
        return value

    @model_validator(mode="after")
    def _fields(self) -> Self:
        for kind, names in (("dimensions", self.dimensions), ("measures", self.measures)):
            for name in names:
                if why := why_no_field(name):
                    raise _at(kind, name, why)
                if kind == "measures" and name in self.dimensions:
                    raise _at(kind, name, "declared both as a dimension and as a measure")
        taken = set(self.dimensions)
        for measure in self.measures:
            derived = derived_from(measure)
            for name in sorted(derived & taken):
                raise _at("measures", measure, f"{name} would name both a column of the aggregates and another field")
            taken |= derived
        return self

    @model_validator(mode="after")
    def _days_are_few(self) -> Self:
        days, ahead = self.policies.retention_days, self.policies.future_tolerance.days
        if days_of_events(self) > MOST_DAYS:
            name = "retention_days" if days >= ahead else "future_tolerance"
            together = " together with future_tolerance" if ahead and days >= ahead else ""
            message = f"a stream holds at most {MOST_DAYS} days of events{together}: each is a partition"
            raise _at("policies", name, message)
        return self

    @model_validator(mode="after")
    def _unique_within_retention(self) -> Self:
        period, kept = self.policies.unique_for, timedelta(days=self.policies.retention_days)
        if self.unique_event_id and not _SHORTEST_UNIQUE <= period <= kept:
            # What is kept of an event must not outlive the event.
            message = f"unique_for is between 1m and the {kept.days}d of retention_days"
            raise _at("policies", "unique_for", message)
        return self

    @property
    def fields(self) -> frozenset[str]:
        """Every field an event of this stream may have."""
        return frozenset((*self.dimensions, *self.measures, "ts", "event_id"))


def _text(name: object) -> str:
    if not isinstance(name, str):
        raise ValueError(f"YAML reads a name as {name!r}; put it between quotes, or choose another")
    return name


def _at(kind: str, name: str, message: str) -> PydanticCustomError:
    """An error of one declared field; `YamlFile.explain` reads its place."""
    return PydanticCustomError("field_name", "{message}", {"message": message, "path": (kind, name)})


def days_of_events(spec: StreamSpec) -> int:
    """How many days the stream's events may be of: as many partitions it has, give or take two."""
    return spec.policies.retention_days + spec.policies.future_tolerance.days


def load_specs(folder: Path | None = None) -> dict[str, StreamSpec]:
    """The shipped streams and those of `folder`, by name; a user's file replaces a shipped one of the same name.

    Raises SpecError naming the file, the line and the field.
    """
    specs: dict[str, StreamSpec] = {}
    files: list[tuple[str, Path]] = []
    for place in [SHIPPED, *([folder] if folder else [])]:
        if not place.is_dir():
            raise SpecError(f"{place} is not a folder of stream files; set PIPELINE_STREAMS_DIR to one that exists.")
        for path in stream_files(place):
            spec = load_spec(path)
            specs[spec.name] = spec
            files.append((spec.name, path))
    if wrong := clashes(files):
        raise SpecError("\n".join(wrong))
    return specs


def stream_files(folder: Path) -> list[Path]:
    """The stream files of a folder."""
    return sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])


def clashes(files: Iterable[tuple[str, Path]]) -> list[str]:
    """What is wrong with streams, by name and file, that are right each by itself: a sentence each."""
    seen: dict[str, Path] = {}
    wrong = []
    for name, path in files:
        if name in seen and seen[name] != path and seen[name].parent == path.parent:
            wrong.append(f"{_name_of(path)}: the stream {name!r} is already declared in {seen[name]}.")
        seen[name] = path
    return wrong + [
        f"{_name_of(seen[second])}: the streams {first!r} and {second!r} cannot be there together: what Dagster "
        f"executes for the one has the name of the other's job; rename one."
        for first, second in one_for_two(seen)
    ]


def _name_of(path: Path) -> str:
    """Where a file of streams that is known to be good says the stream's name."""
    return _read(read_text(path, SpecError), str(path)).place(["name"])


def load_spec(path: Path) -> StreamSpec:
    """The spec in one YAML file; SpecError names the file, the line and the field of a mistake."""
    return parse_spec(read_text(path, SpecError), str(path))


def parse_spec(text: str, where: str) -> StreamSpec:
    """The spec in YAML `text`; `where` names its file in errors."""
    file = _read(text, where)
    try:
        return StreamSpec.model_validate(file.data)
    except ValidationError as error:
        raise SpecError(file.explain(error, "docs/streams.md")) from None


def _read(text: str, where: str) -> YamlFile:
    return parse_mapping(text, where, SpecError, "a stream file is a mapping with name, dimensions and measures")
