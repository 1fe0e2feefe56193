"""Routes: who is told of which alerts, from a YAML file whose mistakes are named by line and field."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline_platform.core.alerts import SEVERITIES, Rule
from pipeline_platform.core.yaml_tree import YamlFile, parse_mapping, read_text
from pipeline_platform.errors import SettingError

NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}\Z")
KIND = re.compile(r"[a-z][a-z0-9_]{0,59}\Z")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}\Z")


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Route(_Strict):
    """One receiver. Its address is `url`, or the environment variable that `url_env` names."""

    name: str
    url: str | None = Field(None, repr=False)
    url_env: str | None = None
    format: Literal["discord", "json"]
    streams: Literal["all"] | tuple[str, ...] = "all"
    kinds: tuple[str, ...] | None = None
    min_severity: Literal["info", "warning", "critical"] = SEVERITIES[0]  # type: ignore[assignment]
    digest_seconds: float = Field(10.0, ge=0, le=3600)
    renotify_minutes: float = Field(60.0, ge=1, le=10_080)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        if not NAME.match(value):
            raise ValueError(
                "a route's name is lower case letters, digits, _ and -, at most 40, starting with a letter"
            )
        return value

    @field_validator("url_env")
    @classmethod
    def _variable(cls, value: str | None) -> str | None:
        if value is not None and not VARIABLE.match(value):
            raise ValueError("this is the name of an environment variable, such as DISCORD_WEBHOOK; the URL goes there")
        return value

    @field_validator("streams", "kinds", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        if isinstance(value, list):
            if not value:
                raise ValueError("the list is empty, so nothing would be sent; leave the field out for all")
            return tuple(value)
        return value

    @field_validator("kinds")
    @classmethod
    def _kinds(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for kind in value or ():
            if not KIND.match(kind):
                raise ValueError(f"{kind[:60]!r} is not a kind of alert, such as breaker_open")
        return value

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give one of url and url_env")
        return self

    @property
    def rule(self) -> Rule:
        """What the outbox has to know of the route."""
        return Rule(
            self.name,
            None if self.streams == "all" else tuple(self.streams),
            self.kinds,
            self.min_severity,
            self.digest_seconds,
            self.renotify_minutes * 60,
        )

    def address(self, environment: Mapping[str, str]) -> str:
        """The URL; SettingError names the variable that is missing."""
        if self.url is not None:
            return self.url
        name = self.url_env or ""
        if not (url := environment.get(name, "").strip()):
            raise SettingError(f"The environment variable {name} of the route {self.name!r} is not set.")
        return url

    def in_clear(self, environment: Mapping[str, str]) -> bool:
        """Whether its messages, and the secret in its address, go over the network without TLS."""
        url = self.url if self.url is not None else environment.get(self.url_env or "", "")
        return url.strip().lower().startswith("http://")


class _Routes(_Strict):
    routes: tuple[Route, ...]

    @field_validator("routes", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value


def load_routes(path: Path, streams: Collection[str]) -> tuple[Route, ...]:
    """The routes of a file; SettingError names the file, the line and the field of every mistake.

    `streams` are the declared ones: a route to another would never send.
    """
    text = read_text(path, SettingError, " PIPELINE_ALERTS_FILE names it.")
    return parse_routes(text, str(path), streams)


def parse_routes(text: str, where: str, streams: Collection[str]) -> tuple[Route, ...]:
    """The routes in YAML `text`; `where` names its file in errors."""
    shape = "a file of routes is a mapping with the list `routes`; see docs/alerts.md"
    file = parse_mapping(text, where, SettingError, shape)
    try:
        routes = _Routes.model_validate(file.data).routes
    except ValidationError as error:
        raise SettingError(file.explain(error, "docs/alerts.md")) from None
    problems = list(_contradictions(routes, streams, file))
    if problems:
        raise SettingError("\n".join(problems))
    return routes


def _contradictions(routes: tuple[Route, ...], streams: Collection[str], file: YamlFile) -> Iterator[str]:
    seen: set[str] = set()
    for number, route in enumerate(routes):
        if route.name in seen:
            yield file.at(("routes", number, "name"), f"the route {route.name!r} is declared twice")
        seen.add(route.name)
        for stream in () if route.streams == "all" else route.streams:
            if stream not in streams:
                message = f"there is no stream {stream[:40]!r}; there are {', '.join(sorted(streams))}"
                yield file.at(("routes", number, "streams"), message)
