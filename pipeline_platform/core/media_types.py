"""Content-Type, Content-Encoding and Accept, read as RFC 9110 writes them (5.6, 8.3, 8.4 and 12.5.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_TYPE = re.compile(rf"[ \t]*({_TOKEN}/{_TOKEN})")
_PARAMETER = re.compile(rf"[ \t]*;[ \t]*(?:({_TOKEN})=({_TOKEN}|{_QUOTED}))?")
_END = re.compile(r"[ \t]*(?:,|\Z)")
_NEXT = re.compile(rf'(?:{_QUOTED}|[^",])*,?')  # to where the next member of a list begins
_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\Z")
UTF8 = frozenset({"utf-8", "utf8", "us-ascii"})


@dataclass(frozen=True, slots=True)
class MediaType:
    """`application/json; charset="UTF-8"`: the type and the parameters' names in lower case, their values unquoted."""

    name: str
    parameters: tuple[tuple[str, str], ...] = ()

    def values(self, parameter: str) -> list[str]:
        """What the parameter is given as: it may be missing, and it may be given twice."""
        return [value for name, value in self.parameters if name == parameter]

    @property
    def utf8(self) -> bool:
        """Whether no charset is named that is not UTF-8, or part of it."""
        return all(charset.lower() in UTF8 for charset in self.values("charset"))

    @property
    def json(self) -> bool:
        """Whether it is JSON by its name or its suffix (RFC 6839)."""
        return self.name == "application/json" or self.name.endswith("+json")


def read_media_type(text: str) -> MediaType:
    """The media type of a Content-Type. Raises ValueError for what is none."""
    found, at = _media_type(text, 0)
    if found is None or text[at:].strip(" \t"):
        raise ValueError("no media type as RFC 9110 writes them, such as application/json; charset=utf-8")
    return found


def utf8_type(text: str) -> str:
    """The type that a Content-Type names, without its parameters; "" for none and for other charsets than UTF-8."""
    try:
        found = read_media_type(text)
    except ValueError:
        return ""
    return found.name if found.utf8 else ""


def content_codings(text: str) -> list[str]:
    """The codings of a Content-Encoding, in lower case and without those that do nothing."""
    names = (part.strip(" \t").lower() for part in text.split(","))
    return ["gzip" if name == "x-gzip" else name for name in names if name not in ("", "identity")]


def accepted_types(accept: str) -> list[tuple[MediaType, float]]:
    """The ranges of an Accept with their qualities, the dearest first. What cannot be read is left out."""
    return sorted(_ranges(accept), key=lambda found: -found[1])


def prefers(accept: str, wanted: str, other: str) -> bool:
    """Whether Accept asks for `wanted` rather than `other`; of equals for the one that it names itself."""
    ranges = accepted_types(accept)
    this, that = (_quality(ranges, name) for name in (wanted, other))
    return this > that or (this == that > 0 and any(found.name == wanted for found, _ in ranges))


def _quality(ranges: list[tuple[MediaType, float]], name: str) -> float:
    """That of the narrowest range it is in. Parameters are not looked at: we have no two variants of a type."""
    for pattern in (name, name.partition("/")[0] + "/*", "*/*"):
        for found, quality in ranges:
            if found.name == pattern:
                return quality
    return 0.0


def _ranges(accept: str) -> Iterator[tuple[MediaType, float]]:
    at = 0
    while at < len(accept):
        found, end = _media_type(accept, at)
        if found is not None and (ended := _END.match(accept, end)):
            at = ended.end()
            qualities = found.values("q") or ["1"]
            if all(_QUALITY.match(quality) for quality in qualities):
                others = tuple(parameter for parameter in found.parameters if parameter[0] != "q")
                yield MediaType(found.name, others), float(qualities[0])
            continue
        skipped = _NEXT.match(accept, at)
        if skipped is None or skipped.end() == at:  # a quote without its end
            return
        at = skipped.end()


def _media_type(text: str, at: int) -> tuple[MediaType | None, int]:
    """The media type that begins there, and where it ends."""
    begun = _TYPE.match(text, at)
    if begun is None:
        return None, at
    at, parameters = begun.end(), []
    while found := _PARAMETER.match(text, at):
        at = found.end()
        if found[1]:
            parameters.append((found[1].lower(), _unquoted(found[2])))
    return MediaType(begun[1].lower(), tuple(parameters)), at


def _unquoted(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
