"""The embedded Valkey: a real Redis-protocol server out of a wheel that never forgets what it has acknowledged."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from pipeline_platform.local.accounts import Account, private_folder, require_reachable
from pipeline_platform.local.binaries import valkey_server
from pipeline_platform.local.ports import remembered_port
from pipeline_platform.local.processes import Service
from pipeline_platform.local.secret_files import secret, write_private
from pipeline_platform.local.valkey_users import ADMIN, RULES, acl_lines, secret_name

HOST = "127.0.0.1"

# Durability before speed: an event is acknowledged after fsync, and a full memory refuses writes instead of forgetting.
SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "aof-load-truncated": "yes",  # a power cut may cut the last write, which then was never acknowledged
    "auto-aof-rewrite-percentage": "100",
    "auto-aof-rewrite-min-size": "256mb",
    "save": '""',
    "maxmemory-policy": "noeviction",
    "databases": "16",
    "protected-mode": "yes",
    "tcp-backlog": "511",
    "daemonize": "no",
    "supervised": "no",
    "loglevel": "warning",
    "logfile": '""',  # stdout, which the supervisor reads
    "always-show-logo": "no",
}


@dataclass(frozen=True)
class ValkeyServer:
    """One embedded server, ready to be started. Make it with `prepare`."""

    program: Path
    data: Path
    config: Path
    port: int
    passwords: Mapping[str, str] = field(repr=False)
    account: Account | None = None
    host: str = HOST
    stop_signal: signal.Signals = signal.SIGTERM

    @classmethod
    def prepare(cls, state_dir: Path, account: Account | None, *, max_memory: int) -> ValkeyServer:
        """Make or check everything below the state folder (see `lock.hold`, which the caller has entered).

        `max_memory` is Valkey's maxmemory in bytes; leave half as much again free for it, because a rewrite of the
        append-only file forks.
        """
        require_reachable(account, state_dir)
        program = valkey_server(state_dir, account)
        home = state_dir / "valkey"
        home.mkdir(exist_ok=True)
        home.chmod(0o711 if account else 0o700)  # the account has to pass, and nobody to look around
        data = private_folder(home / "data", account)
        passwords = {user: secret(state_dir, secret_name(user)) for user in RULES}
        port = remembered_port(state_dir / "ports" / "valkey", HOST)
        settings = SETTINGS | {
            "bind": HOST,
            "port": str(port),
            "dir": _quoted(str(data)),
            "maxmemory": str(max_memory),
        }
        lines = [*(f"{name} {value}" for name, value in settings.items()), *acl_lines(passwords)]
        # A file because arguments can be read by every user of the machine; in a folder of ours, not of the account's,
        # because root had better not write where another account could lay a link.
        config = state_dir / "run" / "valkey.conf"
        owner = (account.uid, account.gid) if account else (-1, -1)
        write_private(config, "".join(f"{line}\n" for line in lines), *owner)
        return cls(program, data, config, port, passwords, account)

    @property
    def argv(self) -> list[str]:
        """Runs the server in the foreground."""
        return [str(self.program), str(self.config)]

    @property
    def env(self) -> dict[str, str]:
        """The server's whole environment."""
        return {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}

    @property
    def password(self) -> str:
        """The admin's."""
        return self.passwords[ADMIN]

    def url(self, database: int = 0, user: str = ADMIN) -> str:
        """A Redis URL. It holds the user's password: never log it."""
        return f"redis://{user}:{quote(self.passwords[user], safe='')}@{self.host}:{self.port}/{database}"

    def ready(self) -> bool:
        """Whether it answers a command; it does not while it loads its append-only file."""
        client = redis.Redis.from_url(
            self.url(), socket_connect_timeout=2, socket_timeout=2, retry=Retry(NoBackoff(), 0)
        )
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def service(self, name: str = "valkey") -> Service:
        """The server as the supervisor runs it."""
        return Service(
            name,
            self.argv,
            self.ready,
            env=self.env,
            account=self.account,
            cwd=self.data,
            stop_signal=self.stop_signal,
            stop_timeout=30.0,
            start_timeout=300.0,  # a long append-only file takes its time to load
        )


def _quoted(value: str) -> str:
    escaped = os.fsencode(value).decode("utf-8", "surrogateescape").replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
