"""One SQLAlchemy engine a process for each pool of connections, safe to fork."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

# A server that vanished without a word is noticed in about a minute, not after the kernel's two hours.
KEEPALIVE = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}


@dataclass(frozen=True)
class Pool:
    """Where to connect and how many connections a process may hold: `size` kept, `overflow` more while busy.

    `application_name` shows in pg_stat_activity; None leaves it to PGAPPNAME. `statement_timeout` is in milliseconds,
    0 for none. `recycle` is the age in seconds at which a connection is replaced, -1 for never.
    """

    url: str = field(repr=False)  # it may hold a password
    size: int = 2
    overflow: int = 8
    application_name: str | None = None
    statement_timeout: int = 0
    recycle: int = -1

    @property
    def limit(self) -> int:
        """The most connections that one process opens."""
        return self.size + self.overflow


def psycopg2_url(url: str) -> str:
    """The URL with psycopg2 named: SQLAlchemy 2.1 reads a bare `postgresql://` as psycopg 3, Dagster wants psycopg2."""
    parsed = sa.make_url(url)
    if parsed.drivername not in ("postgresql", "postgres"):
        return url
    return parsed.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def engine_of(pool: Pool) -> sa.Engine:
    """This process's engine of the pool, made at the first call.

    A forked child finds its parent's under another pid and makes its own. The parent's is kept and not touched:
    psycopg2 leaves a connection alone that another process opened. No lock, which a fork could catch held: an engine
    is made without connecting, so the loser of a race costs nothing.
    """
    key = (os.getpid(), pool)
    return _engines.get(key) or _engines.setdefault(key, _make(pool))


def end_engine(pool: Pool) -> None:
    """Closes this process's idle connections of the pool and forgets it; those in use close when they come back."""
    engine = _engines.pop((os.getpid(), pool), None)
    if engine is not None:
        engine.dispose()


_engines: dict[tuple[int, Pool], sa.Engine] = {}


def _make(pool: Pool) -> sa.Engine:
    url = sa.make_url(pool.url)
    arguments: dict[str, Any] = {name: value for name, value in KEEPALIVE.items() if name not in url.query}
    if pool.application_name:
        arguments["application_name"] = pool.application_name
    if pool.statement_timeout:
        options = url.query.get("options", "")  # an argument would replace the URL's: keep both
        given = options if isinstance(options, str) else " ".join(options)
        arguments["options"] = f"{given} -c statement_timeout={pool.statement_timeout}".strip()
    engine = sa.create_engine(
        url,
        isolation_level="AUTOCOMMIT",  # as Dagster's own: its storages ask for a transaction where they need one
        pool_size=pool.size,
        max_overflow=pool.overflow,
        pool_recycle=pool.recycle,
        pool_use_lifo=True,  # the fewest connections stay warm
        connect_args=arguments,
    )
    sa.event.listen(engine, "checkout", _require_open)
    return engine


def _require_open(connection: Any, _record: object, _proxy: object) -> None:
    """Refuses a pooled connection that the server has closed, so that the pool opens a new one.

    What `pool_pre_ping` asks with a round trip, the kernel knows for nothing: an idle connection has something to read
    only when the server said goodbye, or, rarely, something else that makes a new connection no loss.
    """
    if connection.closed or _readable(connection.fileno()):
        raise sa.exc.DisconnectionError("the server closed this connection")


def _readable(descriptor: int) -> bool:
    poll = select.poll()  # select() would fail above descriptor 1023
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


def for_webserver(pool: Pool, statement_timeout: int, recycle: int, overflow: int) -> Pool:
    """The pool of a process with many request threads, as the webserver asks for it."""
    return replace(pool, statement_timeout=statement_timeout, recycle=recycle, overflow=overflow)
