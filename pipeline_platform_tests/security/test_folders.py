"""Logs and folders of services: closed under any umask, and root follows no link of another account (F11, F14)."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline_platform.errors import SettingError
from pipeline_platform.local.accounts import (
    EDGE_CANDIDATES,
    SERVICE_CANDIDATES,
    fresh_folder,
    private_folder,
    server_account,
    service_account,
)
from pipeline_platform.local.service_logs import ServiceLog

root = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user runs everything as themselves")


@pytest.fixture(autouse=True)
def _open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_log_is_its_owners_alone_also_one_of_an_earlier_version_and_after_it_was_moved(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "any.log"
    path.parent.mkdir()
    path.write_text("select 'personal data'\n")
    path.chmod(0o644)
    log = ServiceLog(path, limit=64)
    assert _mode(path) == 0o600
    for number in range(8):
        log.write(f"line {number} " + "x" * 20)
    log.close()
    moved = path.with_name("any.log.1")
    assert (_mode(path), _mode(moved)) == (0o600, 0o600)


def test_a_folder_of_services_is_made_anew_and_no_link_is_followed(state_dir: Path) -> None:
    precious = state_dir / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    folder = state_dir / "run" / "services"
    folder.mkdir()
    (folder / "stale").touch()
    (folder / "way").symlink_to(precious)
    fresh_folder(folder, None)
    assert (list(folder.iterdir()), _mode(folder)) == ([], 0o700)
    folder.rmdir()
    folder.symlink_to(precious)
    fresh_folder(folder, None)
    assert not folder.is_symlink()
    assert (precious / "file").read_text() == "kept"


@root
def test_a_folder_of_one_account_is_not_given_to_another(state_dir: Path) -> None:
    first, why = service_account([])
    second, _ = service_account([], candidates=EDGE_CANDIDATES)
    assert first is not None, why
    assert second is not None
    assert first.uid != second.uid
    assert (first.name, second.name) == (SERVICE_CANDIDATES[0], EDGE_CANDIDATES[0])
    servers = server_account()
    assert servers is None or servers.uid != first.uid
    folder = private_folder(state_dir / "audit", first)
    assert folder.stat().st_uid == first.uid
    with pytest.raises(SettingError, match="belongs to user id"):
        private_folder(folder, second)


@root
def test_what_an_account_cannot_reach_is_named(state_dir: Path) -> None:
    closed = state_dir / "closed"
    (closed / "python").mkdir(parents=True)
    closed.chmod(0o700)
    account, why = service_account([closed / "python"])
    assert account is None
    assert str(closed) in why
    secret = state_dir / "streams.yaml"
    secret.touch(mode=0o600)
    secret.chmod(0o600)
    account, why = service_account([secret])
    assert account is None
    assert str(secret) in why
    account, why = service_account([], [1])
    assert account is None or Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text().strip() in ("0", "1")
    assert account or "port 1 is root's alone" in why
    _, why = service_account([], candidates=("nobody-of-that-name",))
    assert "there is no account nobody-of-that-name" in why
