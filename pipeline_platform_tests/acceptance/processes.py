"""What a running service is: its processes, what they were told, and which logins they hold."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit


def environment_of(pid: int) -> dict[str, str]:
    """What the process was started with."""
    text = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)


def processes_of(leader: int) -> list[int]:
    """The processes of a service: its session's."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
            except OSError:
                continue
            if session == leader:
                found.append(int(entry.name))
    return found


def login_of(url: str) -> str:
    """PostgreSQL's by name, Valkey's with the database's number."""
    parts = urlsplit(url)
    if parts.scheme == "redis":
        return f"valkey {parts.username} {parts.path.strip('/')}"
    return str(parts.username)
