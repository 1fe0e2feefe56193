"""The locks fit the ranges of setup.py, and hold a hash for every file that may be installed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools  # type: ignore[import-untyped]
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.txt", "requirements-test.txt")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
each_lock = pytest.mark.parametrize("name", LOCKS)


def _entries(name: str) -> list[tuple[Requirement, list[str]]]:
    """What a lock has: each requirement with its hashes."""
    text = (ROOT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(Requirement(line.split(" --hash=")[0]), line.split(" --hash=")[1:]) for line in lines]


@pytest.fixture
def declared(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py says."""
    said: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: said.update(given))
    runpy.run_path(str(ROOT / "setup.py"))
    return said


@each_lock
def test_every_entry_is_one_version_with_hashes(name: str) -> None:
    entries = _entries(name)
    assert len(entries) > 100
    for requirement, hashes in entries:
        assert [each.operator for each in requirement.specifier] == ["=="], requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}\s*", each) for each in hashes), requirement


@each_lock
def test_a_lock_names_no_index_and_no_place(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|^-|^--|@ ", text, re.MULTILINE)


@each_lock
@pytest.mark.parametrize("python", PYTHONS)
def test_a_lock_has_all_that_setup_py_asks_for_within_its_ranges(
    declared: dict[str, Any], name: str, python: str
) -> None:
    here = {"python_version": python, "python_full_version": f"{python}.9", "sys_platform": "linux", "extra": ""}
    locked = {
        canonicalize_name(entry.name): entry
        for entry, _ in _entries(name)
        if entry.marker is None or entry.marker.evaluate(here)
    }
    extras = ("oidc", "test") if name == "requirements-test.txt" else ("oidc",)
    asked = [*declared["install_requires"], *(each for extra in extras for each in declared["extras_require"][extra])]
    for text in [*asked, "setuptools>=68"]:
        wanted = Requirement(text)
        entry = locked[canonicalize_name(wanted.name)]
        (version,) = [each.version for each in entry.specifier]
        assert wanted.specifier.contains(version, prereleases=True), f"{text}, and locked is {version}: run `make lock`"
        assert wanted.extras <= entry.extras, text


def test_what_runs_is_what_is_tested() -> None:
    tested = {(entry.name, str(entry.specifier), str(entry.marker)) for entry, _ in _entries("requirements-test.txt")}
    runs = {(entry.name, str(entry.specifier), str(entry.marker)) for entry, _ in _entries("requirements.txt")}
    assert runs - tested == set()
