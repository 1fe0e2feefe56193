"""docs/formats.md and docs/streams.md say of numbers and bounds what the code does."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline_platform.cli.files.formats_page import formats_page
from pipeline_platform.core.entries import Entry, EntryId
from pipeline_platform.core.events import decode
from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.validation import LARGEST, SMALLEST, validate
from pipeline_platform.settings import Settings

STREAMS = Path(__file__).parents[2] / "docs" / "streams.md"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("1e-200", "`0.0`"),
        ("1e-310", "`0.0`"),
        ("4.9e-324", "`0.0`"),
        ("-0.0", "`0.0`"),
        ("1e-100", "`1e-100`"),
        ("1e100", "`1e+100`"),
        ("1e101", "rejected: `out_of_range`, is beyond 1e+100"),
        ("1.7976931348623157e308", "rejected: `out_of_range`, is beyond 1e+100"),
    ],
)
def test_the_page_says_what_is_stored_of_a_measure(value: str, said: str) -> None:
    assert f"| `{value}` | {said} |\n" in formats_page()


def test_the_page_names_the_bounds_of_measures() -> None:
    page = formats_page()
    assert f"A size beyond {LARGEST:g} is too large" in page
    assert f"A size below {SMALLEST:g} is stored as 0" in page


def test_streams_md_names_them_too() -> None:
    text = " ".join(STREAMS.read_text(encoding="utf-8").split())
    assert float(text.split("a measure whose size is beyond ")[1].split(" ")[0]) == LARGEST
    assert float(text.split("smaller in size than ")[1].split(" ")[0]) == SMALLEST


def test_the_page_has_the_gateways_own_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIPELINE_JSON_MAX_DEPTH", raising=False)
    depth = Settings.load().json_max_depth
    assert f'| `{{"a": {"[" * (depth - 1)}{"]" * (depth - 1)}}}` | accepted |' in formats_page()
    refused = f"refused: the event is nested more than {depth} deep."
    assert f'| `{{"a": {"[" * depth}{"]" * depth}}}` | {refused} |' in formats_page()


@pytest.mark.parametrize(
    ("negatives", "value", "kept"), [("reject", "-1e-200", 0), ("keep", "-1e-200", 1), ("reject", "-0.0", 1)]
)
def test_a_tiny_negative_is_rejected_only_where_negatives_are(negatives: str, value: str, kept: int) -> None:
    spec = StreamSpec.model_validate(
        {"name": "tiny", "dimensions": ["source"], "measures": {"value": {"negatives": negatives}}}
    )
    entry = Entry(EntryId(1, 0), 1, f'{{"source": "a", "value": {value}}}'.encode())
    columns = validate(decode([entry], spec), [entry], spec).columns
    assert columns.measures["value"].tolist() == [0.0] * kept
