"""FILE.rejected: what was left out, and nothing that could be taken for something else."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from pipeline_platform.cli.files.event_files import EventFile, Format
from pipeline_platform.cli.files.event_rows import Row
from pipeline_platform.cli.ingest.rejected_rows import record
from pipeline_platform.errors import SettingError


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row(7, b"a,m", "2 fields"), {"line": 7, "problem": "2 fields", "data": "a,m"}),
        (Row(1, b'a,"m\\xff,\r\nx', "not CSV"), {"line": 1, "problem": "not CSV", "data": 'a,"m\\xff,\r\nx'}),
        (Row(2, b'{"v":"inf"}', "v: inf", "row"), {"row": 2, "problem": "v: inf", "data": '{"v":"inf"}'}),
        (Row(3, b"", "nothing", "event"), {"event": 3, "problem": "nothing", "data": ""}),
        (Row(4, b"a\xff", "x"), {"line": 4, "problem": "x", "base64": base64.b64encode(b"a\xff").decode()}),
    ],
)
def test_a_row_is_listed_with_why(row: Row, said: dict[str, Any]) -> None:
    line = record(row)
    assert line.count(b"\n") == 1
    assert json.loads(line) == said


@pytest.mark.parametrize("name", ["x.csv.rejected", "x.rejected.gz", "telemetry-1.rejected"])
@pytest.mark.parametrize("form", [None, Format.NDJSON])
def test_the_list_is_no_file_to_send(tmp_path: Any, name: str, form: Format | None) -> None:
    (tmp_path / name).touch()
    with pytest.raises(SettingError, match="lists what --skip-bad left out, with why, and is no file to send"):
        EventFile.of(str(tmp_path / name), form)
