"""Media types, codings and Accept as RFC 9110 writes them, and what is not written so."""

from __future__ import annotations

import pytest

from pipeline_platform.core.media_types import accepted_types, content_codings, prefers, read_media_type, utf8_type
from pipeline_platform.gateway.body import MEDIA_TYPES, way_to_read
from pipeline_platform.gateway.problems import ProblemError

WELL_WRITTEN = [
    "application/json; charset=utf-8;",
    "application/json;charset=utf-8",
    "application/json;;  ;charset=utf-8; ;",
    "application/json\t ; \t charset=utf-8",
    " application/json ",
    "application/json;",
    'application/json; charset="utf-8"',
    'application/json; charset="UTF\\-8"',
    "APPLICATION/Json; CharSet=UTF-8",
    "application/json; charset=us-ascii; version=1",
    "application/json; version=2; charset=utf-8",
    'application/json; profile="https://a.example/x;charset=latin-1,y"; charset=utf-8',
    'application/json; x="a \\"quoted\\" charset=utf-16"',
    "application/json; charset=utf-8; charset=UTF-8",
    "application/json; odata.metadata=minimal; q=0",
]
NOT_WRITTEN_SO = [
    "application/json; charset = utf-8",
    "application/json; charset",
    "application/json; =utf-8",
    "application/json; charset=",
    'application/json; charset="utf-8',
    "application/json charset=utf-8",
    "application/json, application/json",
    "application/json/x",
    "application",
    "/json",
    ";",
    "application/json; charset=utf-8, x",
    "application/json; x=ä;y",
]
NOT_UTF8 = [
    "application/json; charset=utf-16",
    'application/json; charset="ISO-8859-1"',
    "application/json; version=1; charset=latin-1",
    "application/json; charset=utf-8; charset=latin-1",
    "application/json; charset=utf-7;",
    'application/json; charset=""',
]
# An event of ours is no problem document, and none is in an envelope.
OTHER_TYPES = [
    "application/problem+json",
    "application/cloudevents+json; charset=utf-8",
    "application/vnd.example+json",
    "text/json",
    "application/json5",
    "application/x-www-form-urlencoded; charset=utf-8",
]


@pytest.mark.parametrize("text", WELL_WRITTEN)
def test_a_media_type_is_read_whatever_its_parameters_look_like(text: str) -> None:
    assert utf8_type(text) == "application/json"
    assert way_to_read(text.encode(), b"") == (MEDIA_TYPES["application/json"], "")


@pytest.mark.parametrize("text", NOT_WRITTEN_SO)
def test_what_is_no_media_type_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="RFC 9110"):
        read_media_type(text)
    with pytest.raises(ProblemError, match="Content-Type is no media type") as refused:
        way_to_read(text.encode(), b"")
    assert (refused.value.status, utf8_type(text)) == (415, "")


@pytest.mark.parametrize("text", NOT_UTF8)
def test_other_charsets_are_refused_wherever_they_stand(text: str) -> None:
    with pytest.raises(ProblemError, match="UTF-8") as refused:
        way_to_read(text.encode(), b"")
    assert (refused.value.status, utf8_type(text)) == (415, "")


@pytest.mark.parametrize("text", OTHER_TYPES)
def test_other_types_are_told_which_there_are(text: str) -> None:
    with pytest.raises(ProblemError, match=r"Send application/json") as refused:
        way_to_read(text.encode(), b"")
    assert refused.value.headers["Accept-Post"].split(", ") == [name for name in MEDIA_TYPES if name]


def test_values_are_unquoted_and_names_are_in_lower_case() -> None:
    found = read_media_type('Text/Plain; Version="1\\.0;x" ; CHARSET=Utf-8')
    assert (found.name, found.parameters) == ("text/plain", (("version", "1.0;x"), ("charset", "Utf-8")))


@pytest.mark.parametrize(
    ("text", "codings"),
    [
        ("", []),
        ("identity", []),
        ("gzip", ["gzip"]),
        ("GZip", ["gzip"]),
        ("x-gzip", ["gzip"]),
        (" gzip ,", ["gzip"]),
        (", ,zstd", ["zstd"]),
        ("identity, gzip", ["gzip"]),
        ("gzip\t,\tX-GZIP", ["gzip", "gzip"]),
        ("br, zstd", ["br", "zstd"]),
    ],
)
def test_codings_are_a_list(text: str, codings: list[str]) -> None:
    assert content_codings(text) == codings
    if len(codings) > 1:
        with pytest.raises(ProblemError, match="once"):
            way_to_read(b"application/json", text.encode())
    else:
        assert way_to_read(b"application/json", text.encode())[1] == "".join(codings)


@pytest.mark.parametrize("text", ["br", "deflate", "gzip;q=1", "gzip zstd", "*"])
def test_other_codings_are_told_which_there_are(text: str) -> None:
    with pytest.raises(ProblemError, match="identity, gzip, zstd") as refused:
        way_to_read(b"application/x-ndjson", text.encode())
    assert refused.value.headers["Accept-Encoding"] == "gzip, zstd"


@pytest.mark.parametrize(
    ("accept", "page"),
    [
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", True),
        ("text/html", True),
        ("TEXT/HTML ; q=1.0", True),
        ("text/html, */*; q=0.01", True),
        ("application/json, text/html", True),
        ("text/*, application/json;q=0.5", True),
        ('application/xml;x="a,b", text/html', True),
        ("text/html;charset=utf-8", True),
        ("", False),
        ("*/*", False),
        ("application/json, text/plain, */*", False),
        ("application/json, text/html;q=0.5", False),
        ("text/html;q=0, */*", False),
        ("text/htmlx", False),
        ("x-text/html-y", False),
        ('text/plain;x=", text/html"', False),
        ("text/html;q=7", False),
        ('"text/html', False),
    ],
)
def test_a_page_is_for_those_who_would_rather_have_one(accept: str, page: bool) -> None:
    assert prefers(accept, "text/html", "application/json") is page


def test_ranges_come_by_quality_and_odd_ones_are_left_out() -> None:
    found = accepted_types('a/b;q=0.2, , c/d;x="1,2";q=0.9, e f, g/h;q=x, i/*, */*;q=0.9')
    assert [(media.name, quality) for media, quality in found] == [("i/*", 1), ("c/d", 0.9), ("*/*", 0.9), ("a/b", 0.2)]


@pytest.mark.parametrize("piece", ['"', ";", "a/b,", 'a/b;c="', '\\"', "a/b;\t", ",", 'a/b;c="\\'])
def test_a_long_header_is_read_as_far_as_it_goes(piece: str) -> None:
    text = piece * 20_000
    assert all(0 <= quality <= 1 for _, quality in accepted_types(text))
    assert utf8_type(text) == ""
