"""The embedded PostgreSQL: a real server out of a wheel, with durability on and a password."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from psycopg import pq

from pipeline_platform.errors import SettingError
from pipeline_platform.local.accounts import Account, require_reachable
from pipeline_platform.local.binaries import PostgresBinaries, postgres_binaries
from pipeline_platform.local.ports import remembered_port
from pipeline_platform.local.postgres_cluster import ENVIRONMENT, SUPERUSER, end_strays, prepare_cluster
from pipeline_platform.local.processes import Service
from pipeline_platform.local.secret_files import secret
from pipeline_platform.local.sockets import socket_folder

HOST = "127.0.0.1"

SETTINGS = {
    "max_connections": "200",
    # A statement over ten years of a stream locks 7,320 partitions and indexes: room for fourteen such at once.
    "max_locks_per_transaction": "512",
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "pglz",  # the wheel is built without lz4
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "autovacuum": "on",
    "track_commit_timestamp": "on",  # when a batch became visible, without writing it
    "max_notify_queue_pages": "64",  # anybody may NOTIFY, nobody of ours does: half a megabyte, not eight gigabytes
    "jit": "off",  # short queries: compiling them costs more than it saves
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_destination": "stderr",
    "logging_collector": "off",
    "log_min_messages": "warning",
    "log_checkpoints": "off",
    "log_line_prefix": "",  # the supervisor says who and when
}
# For tests only: a crash of the machine may cost everything.
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass(frozen=True)
class PostgresServer:
    """One embedded server, ready to be started. Make it with `prepare`."""

    binaries: PostgresBinaries
    data: Path
    socket_dir: Path
    port: int
    password: str = field(repr=False)
    account: Account | None = None
    durable: bool = True
    host: str = HOST
    stop_signal: signal.Signals = signal.SIGINT  # "fast": ends sessions, writes a checkpoint

    @classmethod
    def prepare(cls, state_dir: Path, account: Account | None, *, durable: bool = True) -> PostgresServer:
        """Make or check everything below the state folder (see `lock.hold`, which the caller has entered).

        SettingError when the folder is out of the account's reach, somebody else's, or of another major version.
        """
        require_reachable(account, state_dir)
        binaries = postgres_binaries(state_dir, account)
        home = state_dir / "postgres"
        home.mkdir(exist_ok=True)
        home.chmod(0o711 if account else 0o700)  # the account has to pass, and nobody to look around
        data = home / "data"
        if data.exists() and not (state_dir / "secrets" / "postgres").exists():
            raise SettingError(
                f"{state_dir}/secrets/postgres is missing; put it back, or remove {data} to start empty."
            )
        password = secret(state_dir, "postgres")
        prepare_cluster(data, binaries, account, password, state_dir / "run", durable=durable)
        port = remembered_port(state_dir / "ports" / "postgres", HOST)
        return cls(
            binaries,
            data,
            socket_folder(home / "socket", f".s.PGSQL.{port}.lock", account),
            port,
            password,
            account,
            durable,
        )

    @property
    def argv(self) -> list[str]:
        """Runs the server in the foreground."""
        settings = SETTINGS | ({} if self.durable else NOT_DURABLE)
        settings |= {"listen_addresses": self.host, "port": str(self.port)}
        sockets = str(self.socket_dir).replace('"', '""')
        settings |= {"unix_socket_directories": f'"{sockets}"', "unix_socket_permissions": "0700"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [str(self.binaries.postgres), "-D", str(self.data), *options]

    @property
    def env(self) -> dict[str, str]:
        """The server's whole environment."""
        return dict(ENVIRONMENT)

    def url(self, database: str = "postgres", user: str | None = None, password: str | None = None) -> str:
        """A libpq URL over TCP; without a user, the superuser's. It holds the password: never log it."""
        who = quote(user or SUPERUSER, safe="")
        secret_part = quote(self.password if password is None and user is None else password or "", safe="")
        login = f"{who}:{secret_part}" if secret_part else who
        return f"postgresql://{login}@{self.host}:{self.port}/{quote(database, safe='')}"

    def ready(self) -> bool:
        """Whether it takes connections. Not whether it takes our password, which may be about to be set."""
        if not self._says_ready():  # asking a server that is still recovering would fill its log
            return False
        asked = f"host={self.host} port={self.port} dbname=postgres user={SUPERUSER} connect_timeout=2"
        return pq.PGconn.ping(asked.encode()) == pq.Ping.OK

    def service(self, name: str = "postgres") -> Service:
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
            clean_up=lambda: end_strays(self.data, self.account.uid if self.account else os.geteuid()),
            start_timeout=300.0,  # recovery after a power cut replays up to max_wal_size
        )

    def _says_ready(self) -> bool:
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready"
