"""Regular expressions that mean the same in every Python that we run on."""

from __future__ import annotations

import re
from pathlib import Path

import pipeline_platform

# gh-106052: Python before 3.11.5 goes on from a wrong place behind a possessive group.
POSSESSIVE_GROUP = re.compile(r"\)(?:[*+?]|\{[0-9]*,?[0-9]*\})\+")


def test_no_group_is_possessive() -> None:
    assert POSSESSIVE_GROUP.search(r"(?:ab?c)*+")
    files = list(Path(pipeline_platform.__file__).parent.rglob("*.py"))
    assert len(files) > 300
    assert [file.name for file in files if POSSESSIVE_GROUP.search(file.read_text(encoding="utf-8"))] == []
