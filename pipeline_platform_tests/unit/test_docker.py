"""The files for Docker cannot be run where we test; this is what can be said about them all the same."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from pipeline_platform.cli import reference
from pipeline_platform.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
# Environment of Dagster and of the images, which is not ours to read.
OTHERS = {"DAGSTER_EVENT_BATCH_SIZE", "DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "PYTHONUNBUFFERED", "PYTHONWARNINGS"}
IMAGES = {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB", "VALKEY_PASSWORD"}


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(_text("docker/compose.yaml"))
    return document


def _words(service: dict[str, Any]) -> list[list[str]]:
    """The service's command and health check as words."""
    found = [service["command"]] if "command" in service else []
    test = service.get("healthcheck", {}).get("test", [])
    if test:
        found.append(shlex.split(test[1]) if test[0] == "CMD-SHELL" else test[1:])
    return found


def test_compose_starts_modules_and_programs_that_exist() -> None:
    scripts = {script.name for script in entry_points(group="console_scripts")}
    ours = {
        name: service for name, service in _compose()["services"].items() if service["image"] == "pipeline-platform"
    }
    assert {"migrate", "gateway", "code", "worker", "etl", "daemon", "dagster"} == set(ours)
    for name, service in ours.items():
        for words in _words(service):
            if words[0] == "python":
                assert words[1] in ("-m", "-c"), name
                module = words[2] if words[1] == "-m" else "urllib.request"
                assert importlib.util.find_spec(module), f"{name}: {module}"
            else:
                assert words[0] in scripts, f"{name}: {words[0]}"
            for word in words:
                if re.fullmatch(r"pipeline_platform(\.\w+)+", word):
                    assert importlib.util.find_spec(word), f"{name}: {word}"


def test_compose_sets_known_variables_and_keeps_the_queue_durable() -> None:
    known = {reference.variable(name, field) for name, field in Settings.model_fields.items()} | OTHERS
    services = _compose()["services"]
    for name, service in services.items():
        allowed = known if service["image"] == "pipeline-platform" else IMAGES
        assert set(service["environment"]) <= allowed, name
        assert all(isinstance(value, str) for value in service["environment"].values()), name
    command = services["valkey"]["command"]
    settings = dict(zip(command[1::2], command[2::2], strict=True))
    assert settings["--appendonly"] == "yes"
    assert settings["--appendfsync"] == "always"
    assert settings["--maxmemory-policy"] == "noeviction"
    assert settings["--save"] == ""
    assert services["postgres"]["image"] == "postgres:18"


def test_compose_depends_on_what_is_there_and_publishes_on_loopback_only() -> None:
    document = _compose()
    services = document["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for needed, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], f"{name} waits for {needed}"
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        volumes = [volume.split(":")[0] for volume in service.get("volumes", [])]
        for volume in volumes:
            assert volume in document["volumes"] or (ROOT / "docker" / volume).exists(), f"{name}: {volume}"
    workspace = yaml.safe_load(_text("workspace.yaml"))["load_from"][0]["grpc_server"]
    assert workspace["location_name"] in services["code"]["command"]
    socket = services["code"]["environment"][workspace["socket"]["env"]]
    assert socket in services["code"]["command"]
    has_socket = {name for name, each in services.items() if f"code:{Path(socket).parent}" in each.get("volumes", [])}
    assert has_socket == {"code", "daemon", "dagster"}


def test_the_image_copies_files_that_exist() -> None:
    for sources in re.findall(r"^COPY (.+)$", _text("docker/Dockerfile"), re.MULTILINE):
        for source in sources.split()[:-1]:
            assert (ROOT / source).exists(), source
            ignored = _text("docker/Dockerfile.dockerignore").splitlines()
            assert f"!{source.removeprefix('./').rstrip('/')}" in ignored, source


def test_the_oldest_python_is_the_same_everywhere() -> None:
    version = re.search(r'python_requires=">=(3\.\d+)"', _text("setup.py"))
    assert version is not None
    assert f"FROM python:{version[1]}-slim" in _text("docker/Dockerfile")
    assert f"Python {version[1]} or newer" in _text("CONTRIBUTING.md")
    assert sys.version_info >= tuple(map(int, version[1].split(".")))
