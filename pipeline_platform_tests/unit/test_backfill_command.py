"""`backfill`: days are days, and what was canceled is not told as a failure."""

from __future__ import annotations

from datetime import date

import graphql
import pytest
from dagster_graphql.schema import create_schema

from pipeline_platform.cli import backfill
from pipeline_platform.cli.options import day
from pipeline_platform.errors import SettingError
from pipeline_platform.local import dagster_api
from pipeline_platform.local.dagster_api import BackfillStatus


@pytest.mark.parametrize("text", ["0001-01-01", "2024-02-29", "9999-12-31"])
def test_a_day_is_a_day(text: str) -> None:
    assert day(text, "--from") == date.fromisoformat(text)


@pytest.mark.parametrize("text", ["2026-02-30", "2025-02-29", "2026-13-01", "2026-00-01", "2026-01-00", "0000-01-01"])
def test_a_day_that_there_is_not_is_told_so(text: str) -> None:
    with pytest.raises(SettingError, match=f"^--to {text}: there is no such day\\.$"):
        day(text, "--to")


@pytest.mark.parametrize(
    "text",
    [
        *("", "today", "2026-1-1", "20260101", "2026-W05-1", "2026-01-01T00:00", " 2026-01-01", "2026-01-01\n"),
        *("٢٠٢٦-٠١-٠١", "２０２６-01-01", "२०२६-०१-०१", "2026–01–01", "+2026-01-01", "12026-01-01"),
    ],
)
def test_anything_else_is_no_day(text: str) -> None:
    with pytest.raises(SettingError, match=r"^--from is a day such as 2026-01-31, not "):
        day(text, "--from")


@pytest.mark.parametrize(
    ("first", "last", "said"),
    [
        ("9999-12-31", None, "--from 9999-12-31 is after today"),
        ("9999-12-31", "2026-01-01", "--from 9999-12-31 is after today"),
        ("2020-01-02", "2020-01-01", "--to 2020-01-01 is before --from 2020-01-02"),
        ("2026-01-01", "2026-02-30", "--to 2026-02-30: there is no such day"),
        ("2026-02-30", None, "--from 2026-02-30: there is no such day"),
    ],
)
def test_which_option_is_to_blame_is_said(first: str, last: str | None, said: str) -> None:
    with pytest.raises(SettingError, match=f"^{said}"):
        backfill.backfill("prices/candles", first, last)


@pytest.mark.parametrize(
    ("state", "materialized", "failed", "canceled", "said"),
    [
        ("COMPLETED_SUCCESS", 90, 0, 0, "COMPLETED_SUCCESS[/]: 90 materialized, 0 failed."),
        ("COMPLETED_FAILED", 60, 30, 0, "COMPLETED_FAILED[/]: 60 materialized, 30 failed."),
        (
            "COMPLETED_FAILED",
            0,
            90,
            27,
            "CANCELED[/]: 27 of its runs were canceled; 0 partitions materialized, 90 not.",
        ),
        ("CANCELED", 30, 20, 2, "CANCELED[/]: 2 of its runs were canceled; 30 partitions materialized, 60 not."),
        ("CANCELED", 0, 0, 0, "CANCELED[/]: the backfill was canceled; 0 partitions materialized, 90 not."),
    ],
)
def test_the_end_is_told_in_words(state: str, materialized: int, failed: int, canceled: int, said: str) -> None:
    ending = backfill._ending(BackfillStatus("b", state, 90, materialized, failed, 0), canceled)
    assert ending.split("]", 1)[1] == said


def test_what_dagster_is_asked_it_understands() -> None:
    schema = create_schema().graphql_schema
    asked = [text for name, text in vars(dagster_api).items() if name.isupper() and str(text).lstrip()[:5] in _KINDS]
    assert len(asked) == 5
    assert [problem for text in asked for problem in graphql.validate(schema, graphql.parse(text))] == []


_KINDS = ("query", "mutat")
