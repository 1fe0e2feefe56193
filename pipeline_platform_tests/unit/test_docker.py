"""The files for Docker cannot be run where we test; this is what can be said about them all the same."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import re
import shlex
import shutil
import stat
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml

from pipeline_platform.cli import reference
from pipeline_platform.local.environment import LOGINS, NEEDS
from pipeline_platform.local.valkey_users import RULES, acl_lines
from pipeline_platform.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
# Environment of Dagster and of the images, which is not ours to read.
OTHERS = {"DAGSTER_EVENT_BATCH_SIZE", "DAGSTER_HOME", "DAGSTER_POSTGRES_URL", "PYTHONUNBUFFERED", "PYTHONWARNINGS"}
IMAGES = {"POSTGRES_USER", "POSTGRES_PASSWORD", "POSTGRES_DB"}
MADE = {"./secrets/users.acl"}  # by docker/passwords.sh


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


def _compiles(name: str, code: str) -> None:
    """Its imports are there, and it is Python."""
    for module in (
        alias.name for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import) for alias in node.names
    ):
        assert importlib.util.find_spec(module), f"{name}: {module}"


def _passwords() -> set[str]:
    """The variables that docker/passwords.sh writes."""
    script = _text("docker/passwords.sh")
    postgres, valkey = (re.search(rf"^for {word} in (.+); do$", script, re.MULTILINE) for word in ("name", "user"))
    assert postgres
    assert valkey
    users = {f"VALKEY_{user.upper()}_PASSWORD" for user in valkey[1].split()}
    return {f"{name}_PASSWORD" for name in postgres[1].split()} | users


def test_compose_starts_modules_and_programs_that_exist() -> None:
    scripts = {script.name for script in entry_points(group="console_scripts")}
    ours = {
        name: service for name, service in _compose()["services"].items() if service["image"] == "pipeline-platform"
    }
    assert {"migrate", "gateway", "code", "worker", "etl", "daemon", "dagster"} == set(ours)
    for name, service in ours.items():
        for words in _words(service):
            if words[0] == "python":
                words = [word for word in words if word != "-S"]
                assert words[1] in ("-m", "-c"), name
                if words[1] == "-m":
                    assert importlib.util.find_spec(words[2]), f"{name}: {words[2]}"
                else:
                    _compiles(name, words[-1])
            else:
                assert words[0] in scripts, f"{name}: {words[0]}"
            for word in words:
                if re.fullmatch(r"pipeline_platform(\.\w+)+", word):
                    assert importlib.util.find_spec(word), f"{name}: {word}"


def test_compose_sets_known_variables_and_keeps_the_queue_durable() -> None:
    known = {reference.variable(name, field) for name, field in Settings.model_fields.items()} | OTHERS
    services = _compose()["services"]
    for name, service in services.items():
        allowed = known if service["image"] == "pipeline-platform" else IMAGES | _passwords()
        environment = service.get("environment", {})
        assert set(environment) <= allowed, name
        assert all(isinstance(value, str) for value in environment.values()), name
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
            known = {*document["volumes"], *MADE}
            assert volume in known or (ROOT / "docker" / volume).exists(), f"{name}: {volume}"
    workspace = yaml.safe_load(_text("workspace.yaml"))["load_from"][0]["grpc_server"]
    assert workspace["location_name"] in services["code"]["command"]
    socket = services["code"]["environment"][workspace["socket"]["env"]]
    assert socket in services["code"]["command"]
    has_socket = {name for name, each in services.items() if f"code:{Path(socket).parent}" in each.get("volumes", [])}
    assert has_socket == {"code", "daemon", "dagster"}


def test_a_service_of_compose_has_the_logins_that_up_would_give_it() -> None:
    services = _compose()["services"]
    for name in ("gateway", "code", "worker", "etl", "daemon", "dagster"):
        given = {variable for variable in services[name]["environment"] if variable in LOGINS}
        assert given == set(NEEDS[name]), name
        urls = " ".join(services[name]["environment"][variable] for variable in given)
        assert "postgres:$" not in urls, name  # the superuser's
        assert "admin:$" not in urls, name
    assert "POSTGRES_PASSWORD" in services["postgres"]["environment"]
    assert services["postgres"]["environment"]["POSTGRES_USER"] == "postgres"


def test_no_password_is_an_argument() -> None:
    for name, service in _compose()["services"].items():
        assert "PASSWORD" not in str(service.get("command", "")), name
        assert "PASSWORD" not in str(service.get("healthcheck", "")), name


def test_containers_may_do_nothing_that_they_need_not() -> None:
    document = _compose()
    for name, service in document["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert service["tmpfs"], name
        assert service["mem_limit"], name
        assert service["pids_limit"], name
        assert service["logging"]["options"]["max-size"], name
        assert set(service.get("cap_add", ())) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}, name
        ours = service["image"] == "pipeline-platform"
        assert not (ours and "cap_add" in service), name
        assert not ours or service["pull_policy"] in ("never", "build"), name
    assert re.search(r"^USER \d+:\d+$", _text("docker/Dockerfile"), re.MULTILINE)


def test_networks_hold_those_who_have_to_meet() -> None:
    document = _compose()
    services, networks = document["services"], document["networks"]
    members = {
        network: {name for name, service in services.items() if network in service["networks"]} for network in networks
    }
    assert members["edge"] == {name for name, service in services.items() if service.get("ports")}
    assert members["out"] == {"worker", "etl"}
    assert members["data"] == set(services)
    assert networks["data"]["internal"] is True


def test_the_queues_users_are_those_of_up() -> None:
    text = _text("docker/users.acl.in")
    expected = acl_lines(dict.fromkeys(RULES, ""))
    digest = hashlib.sha256(b"").hexdigest()
    lines = [re.sub("@[a-z]+@", digest, line) for line in text.splitlines() if not line.startswith("user probe ")]
    assert lines == expected
    assert "user probe reset on nopass resetchannels -@all +ping\n" in text
    assert set(re.findall("@([a-z]+)@", text)) == set(RULES)


def test_the_script_makes_every_password_once(tmp_path: Path) -> None:
    for name in ("passwords.sh", "users.acl.in"):
        shutil.copy(ROOT / "docker" / name, tmp_path / name)
    subprocess.run([tmp_path / "passwords.sh"], check=True, capture_output=True)
    written = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    wanted = set(re.findall(r"\$\{(\w+_PASSWORD)\b", _text("docker/compose.yaml")))
    assert set(written) == _passwords() == wanted
    assert len(set(written.values())) == len(written)
    assert all(re.fullmatch("[0-9a-f]{48}", password) for password in written.values())
    users = {name: written[f"VALKEY_{name.upper()}_PASSWORD"] for name in RULES}
    made = (tmp_path / "secrets" / "users.acl").read_text().splitlines()
    assert [line for line in made if not line.startswith("user probe ")] == acl_lines(users)
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "secrets").stat().st_mode) == 0o700
    assert sorted(path.name for path in (tmp_path / "secrets").iterdir()) == ["users.acl"]
    again = subprocess.run([tmp_path / "passwords.sh"], capture_output=True, text=True)
    assert again.returncode == 1
    assert "is there already" in again.stderr


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
