"""Parameters of a URL, one rule for all routes below /v1: each is known, is UTF-8, and is given once unless any of
several values may match."""

from __future__ import annotations

from collections.abc import Collection
from inspect import isclass
from typing import Annotated, get_origin
from urllib.parse import parse_qsl

from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator
from starlette.requests import Request

from pipeline_platform.core.numbers import whole_number_in
from pipeline_platform.gateway.problems import ProblemError, shown

_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


def parameters_of(query: bytes, once: Collection[str], many: Collection[str] = ()) -> list[tuple[str, str]]:
    """The names and values of a query string, as they stand; a 422 problem names the first that cannot be used."""
    if not query.isascii():
        raise bad_parameter("", "The query holds bytes beyond ASCII; write each as % and two digits, such as %C3%BC.")
    pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="surrogateescape")
    seen: set[str] = set()
    for name, value in pairs:
        if name not in once and name not in many:
            known = ", ".join([*once, *many])
            there = f"; there are {known}" if known else ", nor any other"
            raise bad_parameter(name, f"There is no parameter {shown(name)!r} here{there}.")
        if any("\ud800" <= sign <= "\udfff" for sign in value):
            raise bad_parameter(name, f"{name} is not valid UTF-8.")
        if name in seen and name not in many:
            raise bad_parameter(name, f"{name} may be given once.")
        seen.add(name)
    return pairs


def check_parameters(request: Request) -> None:
    """The same for a route of FastAPI, which passes over what it does not know and takes the last of several."""
    if query := request.scope["query_string"]:
        parameters_of(query, *_declared(request.scope["route"]))


def bad_parameter(name: str, detail: str) -> ProblemError:
    """The 422 problem."""
    return ProblemError("bad-parameter", detail, parameter=shown(name))


def truth_in(value: str) -> bool:
    """`true` or `1`, `false` or `0`. Raises ValueError."""
    if value.lower() not in _TRUTHS:
        raise ValueError("should be true or false")
    return _TRUTHS[value.lower()]


def _whole_number(value: object) -> object:
    """As everywhere else: digits of ASCII, without `_`."""
    try:
        return whole_number_in(value) if isinstance(value, str) else value
    except (ValueError, OverflowError):
        raise ValueError("should be a whole number") from None


def _truth(value: object) -> object:
    return truth_in(value) if isinstance(value, str) else value


Truth = Annotated[bool, BeforeValidator(_truth)]
WholeNumber = Annotated[int, BeforeValidator(_whole_number)]


def _declared(route: APIRoute) -> tuple[list[str], list[str]]:
    """The names of a route's parameters: those that may be given once, and several times."""
    once: list[str] = []
    many: list[str] = []
    for field in route.dependant.query_params:
        kind = field.field_info.annotation
        fields = kind.model_fields if isclass(kind) and issubclass(kind, BaseModel) else {field.alias: field.field_info}
        for name, info in fields.items():
            (many if get_origin(info.annotation) is list else once).append(info.alias or name)
    return once, many
