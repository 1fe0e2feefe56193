"""Routes from a file: what is taken, and how a mistake is named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pipeline_platform.alerts.routes import Route, load_routes, parse_routes
from pipeline_platform.core.alerts import Rule
from pipeline_platform.core.yaml_tree import LARGEST
from pipeline_platform.errors import SettingError

STREAMS = ("orders", "telemetry")
GOOD = """\
routes:
  - name: team
    url_env: DISCORD_WEBHOOK
    format: discord
  - name: pager
    url: https://pager.test/hook
    format: json
    streams: [orders]
    kinds: [breaker_open, batch_dead]
    min_severity: critical
    digest_seconds: 2
    renotify_minutes: 15
"""


def test_routes_with_and_without_options() -> None:
    team, pager = parse_routes(GOOD, "alerts.yaml", STREAMS)
    assert team.rule == Rule("team", None, None, "info", 10.0, 3600.0)
    assert team.rule.severities == ("info", "warning", "critical")
    assert pager.rule == Rule("pager", ("orders",), ("breaker_open", "batch_dead"), "critical", 2.0, 900.0)
    assert pager.rule.severities == ("critical",)
    assert pager.address({}) == "https://pager.test/hook"
    assert team.address({"DISCORD_WEBHOOK": " https://d.test/x\n"}) == "https://d.test/x"
    with pytest.raises(SettingError, match="DISCORD_WEBHOOK of the route 'team' is not set"):
        team.address({})


def test_an_address_does_not_show_in_a_route() -> None:
    assert "pager.test" not in repr(parse_routes(GOOD, "alerts.yaml", STREAMS))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("format: json", "format: xml", "line 7, field routes.2.format: should be 'discord' or 'json'"),
        ("format: json", "form: json", "line 7, field routes.2.form: no such field"),
        ("format: json\n", "streams: all\n", "line 8, field streams: given twice"),
        ("name: pager", "name: Pager!", "line 5, field routes.2.name: a route's name is lower case"),
        ("name: pager", "name: team", "line 5, field routes.2.name: the route 'team' is declared twice"),
        (
            "[orders]",
            "[orders, ordres]",
            "line 8, field routes.2.streams: there is no stream 'ordres'; there are orders",
        ),
        ("[orders]", "[]", "line 8, field routes.2.streams: the list is empty"),
        ("[orders]", "orders", "line 8, field routes.2.streams"),
        ("critical", "bad", "line 10, field routes.2.min_severity"),
        ("digest_seconds: 2", "digest_seconds: -1", "line 11, field routes.2.digest_seconds"),
        ("digest_seconds: 2", "digest_seconds: soon", "line 11, field routes.2.digest_seconds"),
        ("renotify_minutes: 15", "renotify_minutes: 0", "line 12, field routes.2.renotify_minutes"),
        ("[breaker_open, batch_dead]", "[Breaker Open]", "line 9, field routes.2.kinds: 'Breaker Open' is not a kind"),
        ("    url: https://pager.test/hook\n", "", "line 5, field routes.2: give one of url and url_env"),
        (
            "url_env: DISCORD_WEBHOOK",
            "url_env: https://d.test",
            "line 3, field routes.1.url_env: this is the name of an",
        ),
        ("routes:", "route:", "field routes: is missing"),
        ("routes:", "[", "line 2: not YAML"),
        (GOOD, "", "line 1: a file of routes is a mapping"),
        (GOOD, "routes: &a [*a]", "nested too deeply, or an alias of itself"),
        (GOOD, "routes: 5", "field routes: "),
        (GOOD, "routes:\n  - team\n", "line 2, field routes.1"),
        (GOOD, "? [a]\n: b\n", "a field's name is plain text"),
        (GOOD, "routes: 2020-99-99", "alerts.yaml"),
        (GOOD, "routes: \x07", "alerts.yaml"),
    ],
)
def test_mistakes_are_named_by_line_and_field(old: str, new: str, said: str) -> None:
    with pytest.raises(SettingError) as error:
        parse_routes(GOOD.replace(old, new, 1), "alerts.yaml", STREAMS)
    assert str(error.value).startswith("alerts.yaml")
    assert said in str(error.value)
    assert "pager.test" not in str(error.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(SettingError, match=f"{path}: cannot be read"):
            load_routes(path, STREAMS)
    file = tmp_path / "alerts.yaml"
    file.write_bytes(b"\xff\x00")
    with pytest.raises(SettingError, match="not UTF-8"):
        load_routes(file, STREAMS)
    file.write_text("#" * LARGEST + "#")
    with pytest.raises(SettingError, match="larger than 256 KiB"):
        load_routes(file, STREAMS)
    file.write_text(GOOD)
    assert [route.name for route in load_routes(file, STREAMS)] == ["team", "pager"]


def test_the_file_in_the_documents_is_one() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    example = re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0]
    routes = parse_routes(example, "docs/alerts.md", STREAMS)
    assert [route.name for route in routes] == ["team", "pager"]
    described = re.findall(r"^\| (`.+?) \|", page.split("### Fields of a route")[1].split("### Kinds")[0], re.MULTILINE)
    assert {name for cell in described for name in re.findall(r"`([a-z_]+)`", cell)} == set(Route.model_fields)
