"""The documents say what the code does: links, files, commands, routes, settings, reasons, problems."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase
from starlette.routing import Route

from pipeline_platform.cli import reference
from pipeline_platform.core import names
from pipeline_platform.core.media_types import UTF8
from pipeline_platform.core.rejections import Reason
from pipeline_platform.core.streams import MOST_DAYS, Dimension, Measure, Policies, StreamSpec, load_specs, parse_spec
from pipeline_platform.core.yaml_tree import DEEPEST, LARGEST, MOST_VALUES
from pipeline_platform.gateway.app import build_app
from pipeline_platform.gateway.body import MEDIA_TYPES
from pipeline_platform.gateway.expositions import VERSIONS
from pipeline_platform.gateway.inflate import ENCODINGS
from pipeline_platform.gateway.metrics import Metrics
from pipeline_platform.gateway.problems import PROBLEMS
from pipeline_platform.settings import Settings
from pipeline_platform.sources import reference as prices
from pipeline_platform.warehouse.schema import STATES, assets, dead_letters

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\[[^\]]*\]\(([^()\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
# What begins like this is a path of the repository.
HOMES = ("pipeline_platform/", "pipeline_platform_tests/", "benchmarks/", "docs/", "docker/", ".ci/")
FILES = re.compile(r"(?:dagster|workspace)\.yaml|setup\.py|pyproject\.toml|Makefile|[A-Z]+\.md")


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _prose(text: str) -> str:
    return FENCE.sub("", text)


def _anchors(text: str) -> set[str]:
    """The headings' anchors as GitHub makes them."""
    headings = re.findall(r"^#+ +(.+)$", _prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _blocks(text: str, language: str) -> list[str]:
    return [body for _, kind, body in FENCE.findall(text) if kind == language]


def _rows(text: str, heading: str) -> list[str]:
    """The first cells, without code marks, of the tables behind a heading."""
    part = _prose(text).split(f"\n{heading}\n", 1)[1]
    part = re.split(r"^#{1,3} ", part, maxsplit=1, flags=re.MULTILINE)[0]
    cells = re.findall(r"^\| ([^|]+?) \|", part, re.MULTILINE)
    return [name for cell in cells for name in CODE.findall(cell)]


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(_prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in _anchors(there.read_text(encoding="utf-8"))):
            broken.append(target)
    assert broken == []


@each_page
def test_files_that_are_named_exist(page: Path) -> None:
    missing = []
    for code in CODE.findall(_prose(page.read_text(encoding="utf-8"))):
        name = code.split("::")[0]
        if any(sign in name for sign in "<>*{} $") or not (name.startswith(HOMES) or FILES.fullmatch(name)):
            continue
        if not (ROOT / name).exists():
            missing.append(name)
    assert missing == [] or _to_be_made_by_reader(page, missing)


@pytest.mark.parametrize("name", ["docs/security.md", "docs/asvs.md"])
def test_tests_that_are_named_exist(name: str) -> None:
    named = set(re.findall(r"`([\w/]+/test_\w+\.py)(?:::(\w+))?`", _text(name)))
    assert len(named) > 40
    missing = []
    for path, function in named:
        file = ROOT / "pipeline_platform_tests" / path
        if not file.exists() or (function and f"def {function}(" not in file.read_text(encoding="utf-8")):
            missing.append(f"{path}::{function}")
    assert missing == []


def _to_be_made_by_reader(page: Path, missing: list[str]) -> bool:
    """docker/streams/ and docker/.env are the reader's own."""
    return page.name == "operations.md" and set(missing) <= {"docker/.env", "docker/streams/"}


@pytest.mark.parametrize("name", sorted(reference.PAGES))
def test_generated_pages_are_up_to_date(name: str) -> None:
    again = f"python -m pipeline_platform.cli.reference {name} > docs/{name}.md"
    assert _text(f"docs/{name}.md") == reference.PAGES[name](), f"run: {again}"


def test_tables_of_sources_are_as_the_sources_are() -> None:
    page = _text("docs/prices.md")
    for table in (prices.sources_table(), prices.pauses_table()):
        assert table in page, "run: python -m pipeline_platform.sources.reference"


def test_every_command_has_a_summary_an_example_and_explained_options() -> None:
    for name, command in reference.commands():
        assert command.help, name
        assert name in command.help.split(reference.EXAMPLE, 1)[-1], f"{name} has no example"
        for parameter in command.params:
            assert parameter.help or parameter.name == "help", f"{name} {parameter.name}"


def test_commands_in_the_documents_exist_and_have_the_options_that_are_shown() -> None:
    options = {name: _options(command) for name, command in reference.commands()}
    used = [(page.name, line) for page in PAGES for line in _command_lines(page.read_text(encoding="utf-8"))]
    assert len(used) > 20
    for page, line in used:
        words = line.split()
        found = next((name for name in (" ".join(words[:3]), " ".join(words[:2])) if name in options), "")
        groups = {name.rsplit(" ", 1)[0] for name in options}
        assert found or line in groups or words[1].startswith(("-", ".")), f"{page}: {line}"
        given = {word.split("=")[0] for word in words if word.startswith("--")}
        assert given <= options.get(found, given), f"{page}: {line}"


def _options(command: Any) -> set[str]:
    return {"--help", *(word for each in command.params for word in (*each.opts, *each.secondary_opts))}


def _command_lines(text: str) -> Iterator[str]:
    """Every use of our command in shell blocks and code marks, up to its end and without what is quoted."""
    places = [block.replace("\\\n", " ") for block in _blocks(text, "bash")] + CODE.findall(_prose(text))
    for place in places:
        for use in re.findall(r"""pipeline-platform(?: (?:"[^"]*"|'[^']*'|[^|;&)"'#\n])*)""", place):
            line = re.sub(r""""[^"]*"|'[^']*'""", "X", use).strip()
            if " " in line:
                yield line


def test_every_route_is_described() -> None:
    settings = Settings(database_url="postgresql://nobody@127.0.0.1:1/none", redis_url="redis://127.0.0.1:1/0")
    app = build_app(settings, load_specs())
    app.state.edge.engine.dispose()
    described = set(re.findall(r"`(?:GET|POST) (/[^\s`]*)`", _text("docs/api.md")))
    plain = {route.path for route in app.routes if isinstance(route, Route)}
    routes = plain | set(app.openapi()["paths"])
    assert routes - described == set()
    assert described - routes == set(), "described, but not there"


def test_every_problem_is_described_with_its_status() -> None:
    page = _text("docs/api.md")
    described = dict(re.findall(r"^\| `([a-z-]+)` \| (\d{3}) \|", page, re.MULTILINE))
    assert described == {kind: str(status) for kind, (status, _) in PROBLEMS.items()}


def test_every_metric_is_described_with_its_labels() -> None:
    metrics = Metrics()
    metrics.register_dagster()
    there = {
        each._name + ("_total" if isinstance(each, Counter) else ""): set(each._labelnames)
        for each in vars(metrics).values()
        if isinstance(each, MetricWrapperBase)
    }
    rows = re.findall(r"^\| (`pipeline_[^|]*)\|([^|]*)\|", _text("docs/operations.md"), re.MULTILINE)
    described = {name: set(CODE.findall(labels)) for names, labels in rows for name in CODE.findall(names)}
    assert described == there
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    used = set(re.findall(r"\bpipeline_[a-z]\w+(?=\{| [<>=]=? ?\d|\[)", text))
    assert used
    assert used <= set(there)


def test_every_reason_is_described() -> None:
    assert _rows(_text("docs/streams.md"), "## What ends in dead_letters") == [reason.value for reason in Reason]


@pytest.mark.parametrize(
    ("heading", "model"),
    [
        ("## Fields of a stream file", StreamSpec),
        ("### Options of a dimension", Dimension),
        ("### Options of a measure", Measure),
        ("### Policies", Policies),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_field_of_a_stream_is_described(heading: str, model: Any) -> None:
    assert _rows(_text("docs/streams.md"), heading) == list(model.model_fields)
    assert f"| 1 to {MOST_DAYS}," in _text("docs/streams.md")
    bounds = f"{LARGEST // 1024} KiB, {DEEPEST} levels and {MOST_VALUES:,} values"
    assert bounds in _text("docs/streams.md").replace("\n", " ")


def test_every_name_that_cannot_work_is_described() -> None:
    described = set(CODE.findall(_text("docs/streams.md").split("### Names\n")[1].split("\n#")[0]))
    wanted = names.OWN_COLUMNS | names.SYSTEM_COLUMNS | names.TABLES | set(names.SUFFIXES) | {names.OP_SUFFIX}
    wanted |= {f"_{suffix}" for suffix in names.MEASURE_SUFFIXES} | names.RESERVED
    assert wanted - described == set()
    assert f"at most {names.LONGEST_STREAM} for a stream" in _text("docs/streams.md")


def test_every_media_type_coding_and_format_is_described() -> None:
    described = set(CODE.findall(_text("docs/api.md").split("## POST events\n")[1].split("\n## ")[0]))
    assert {name for name in MEDIA_TYPES if name} | set(ENCODINGS) | UTF8 <= described
    told = set(CODE.findall(_text("docs/operations.md")))
    assert {*VERSIONS, *(version for those in VERSIONS.values() for version in those if version)} <= told


def test_stream_files_in_the_documents_are_well_formed() -> None:
    examples = [
        (page, block)
        for page in PAGES
        for block in _blocks(page.read_text(encoding="utf-8"), "yaml")
        if re.search(r"^name:", block, re.MULTILINE)
    ]
    assert examples, "docs/streams.md should show a whole stream file"
    for page, block in examples:
        parse_spec(block, str(page))


def test_every_state_of_the_ledger_is_described() -> None:
    assert set(_rows(_text("docs/operations.md"), "### The ledger: `assets`")) == set(STATES)


def test_columns_of_the_ledger_in_the_queries_exist() -> None:
    page = _text("docs/operations.md")
    for table in (assets, dead_letters):
        queries = [query for query in re.findall(r'sql "([^"]*)"', page) if re.search(rf"\bfrom {table.name}\b", query)]
        assert queries, table.name
        for query in queries:
            chosen = re.split(r"\bfrom\b", query, maxsplit=1)[0].removeprefix("select")
            names = set(re.findall(r"\b[a-z_]+\b", re.sub(r"\bas \w+|\b(?:count|max)\b", "", chosen)))
            assert names <= set(table.columns.keys()), query


def test_settings_in_the_documents_are_known() -> None:
    known = {reference.variable(name, field) for name, field in Settings.model_fields.items()}
    for page in [*PAGES, *(ROOT / "docker").glob("*"), ROOT / "dagster.yaml", ROOT / "workspace.yaml"]:
        if not page.is_file():
            continue
        # PIPELINE_FAULTS and PIPELINE_SEED are the test suite's.
        named = set(re.findall(r"\bPIPELINE_[A-Z_]+\b", page.read_text(encoding="utf-8")))
        assert named - known <= {"PIPELINE_FAULTS", "PIPELINE_SEED"}, page.name


def test_modules_that_the_documents_run_exist() -> None:
    for page in PAGES:
        for module in re.findall(r"python3? -m ([\w.]+)", page.read_text(encoding="utf-8")):
            assert importlib.util.find_spec(module), f"{page.name}: {module}"


def test_make_targets_in_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", _text("Makefile"), re.MULTILINE))
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        code = [*CODE.findall(_prose(text)), *"\n".join(_blocks(text, "bash")).splitlines()]
        named = {match[1] for line in code if (match := re.match(r"\s*make ([a-z-]+)", line))}
        assert named <= targets, page.name


def test_every_decision_is_listed() -> None:
    pages = {path.name for path in (DOCS / "decisions").glob("0*.md")}
    listed = set(re.findall(r"\]\((0[^)]+\.md)\)", _text("docs/decisions/README.md")))
    assert pages == listed
    for name in pages:
        text = _text(f"docs/decisions/{name}")
        assert text.startswith(f"# {name[:4]}: "), name
        for part in ("Context", "Decision", "Why", "Consequences"):
            assert f"**{part}.**" in text, f"{name}: {part}"
