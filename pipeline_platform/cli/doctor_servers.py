"""`doctor`'s look at the servers: PostgreSQL, Redis, the gateway, and whether what they hold agrees."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
import requests
import sqlalchemy as sa

from pipeline_platform.cli.findings import Finding
from pipeline_platform.cli.gateway_client import is_loopback
from pipeline_platform.core.entries import ZERO
from pipeline_platform.core.streams import StreamSpec, days_of_events, load_specs
from pipeline_platform.errors import PlatformError
from pipeline_platform.local.connections import Connections
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.connection import queue_errors
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.engine import connect as connect_warehouse
from pipeline_platform.warehouse.engine import warehouse_errors
from pipeline_platform.warehouse.ledger import Ledger
from pipeline_platform.warehouse.migrate import current_revision, differences, head_revision
from pipeline_platform.warehouse.reconcile import facts_equal_ledger, minutes_equal_facts
from pipeline_platform.warehouse.stream_changes import plan_changes

ROLES = ("pipeline_loader", "pipeline_reader")
_OLD_SESSIONS = """
select pid from pg_stat_activity
where usename = current_user and datname = current_database() and pid <> pg_backend_pid()
    and xact_start < clock_timestamp() - interval '1 minute'
order by xact_start limit 10
"""
RECENT = timedelta(minutes=15)
DURABLE = {
    "appendonly": ("yes", "accepted events are lost when the server ends"),
    "appendfsync": ("always", "accepted events of the last second can be lost"),
    "maxmemory-policy": ("noeviction", "accepted events are thrown away when memory is short"),
}


def check_servers(settings: Settings, where: Connections, *, running: bool) -> list[Finding]:
    """All findings about the servers; what depends on one that is away is left out."""
    try:
        specs = load_specs(settings.streams_dir)
    except PlatformError as error:
        return [Finding("fail", "streams", str(error))]
    engine = connect_warehouse(where.warehouse_url, pool_size=1, application="pipeline-doctor")
    client = connect_queue(where.redis_url, timeout=5.0)
    try:
        warehouse = _warehouse(engine, specs)
        queue = _queue(client, settings)
        found = warehouse + queue
        if all(one.level != "fail" for one in warehouse):
            found.append(_sessions(where))
            if all(one.level != "fail" for one in queue):
                found += [_position(name, RedisStreams(client), Ledger(engine)) for name in specs]
            found += [one for spec in specs.values() for one in _reconciled(engine, spec)]
    finally:
        client.close()
        engine.dispose()
    return [*found, _gateway(where, running=running)]


def _warehouse(engine: sa.Engine, specs: Mapping[str, StreamSpec]) -> list[Finding]:
    name = "PostgreSQL"
    try:
        with warehouse_errors(), engine.connect() as connection:
            version = str(connection.scalar(sa.text("show server_version")))
            number = int(str(connection.scalar(sa.text("show server_version_num"))))
            found = [
                Finding("ok", name, f"version {version}")
                if number >= 140_000
                else Finding("warn", name, f"version {version} was never tried; use 14 or newer")
            ]
            query = sa.text("select rolname from pg_roles where rolname = any(:roles)")
            present = set(connection.scalars(query, {"roles": list(ROLES)}))
            missing = [role for role in ROLES if role not in present]
            if missing:
                advice = "everything runs as the owner; let somebody with CREATEROLE run `pipeline-platform migrate`"
                found.append(Finding("warn", "roles", f"{' and '.join(missing)} do not exist: {advice}"))
            else:
                found.append(Finding("ok", "roles", " and ".join(ROLES)))
            return [*found, _locks(connection), _room(connection, specs), *_schema(connection, specs)]
    except PlatformError as error:
        return [Finding("fail", name, f"{error} See that it runs and that DATABASE_URL is right")]


def _locks(connection: sa.Connection) -> Finding:
    """Whether a login that only reads could hold up planning and loading."""
    if connection.scalar(sa.text("select has_function_privilege('public', 'pg_advisory_lock(bigint)', 'execute')")):
        advice = "let a superuser run rights.sql in this database; see docs/operations.md, 'Logins'"
        return Finding("warn", "locks", f"every login may take the locks that planning and loading wait for: {advice}")
    return Finding("ok", "locks", "only the owner and the loader may take those that planning waits for")


def _room(connection: sa.Connection, specs: Mapping[str, StreamSpec]) -> Finding:
    """Whether two statements over all days of the longest stream find room in PostgreSQL's table of locks."""
    names = ("max_locks_per_transaction", "max_connections", "max_prepared_transactions")
    each, sessions, prepared = (int(str(connection.scalar(sa.text(f"show {name}")))) for name in names)
    days, stream = max(((days_of_events(spec), name) for name, spec in specs.items()), default=(1, ""))
    wanted, room = 4 * days, each * (sessions + prepared)  # a partition and its index, twice
    if room >= wanted:
        return Finding("ok", "room for locks", f"{room:,}, of which all days of a stream take at most {wanted // 2:,}")
    advice = f"set max_locks_per_transaction to {-(-wanted // (sessions + prepared))} and restart PostgreSQL"
    message = f"there is room for {room:,}, and a query over all of {stream} may take {wanted // 2:,}: {advice}"
    return Finding("warn", "room for locks", message)


def _sessions(where: Connections) -> Finding:
    """People's transactions: the login's time limits are only advice, and an old one holds back vacuum and drops."""
    engine = connect_warehouse(where.warehouse_readonly_url, pool_size=1, application="pipeline-doctor")
    try:
        with warehouse_errors(), engine.connect() as connection:
            old: Any = list(connection.scalars(sa.text(_OLD_SESSIONS)))
    except PlatformError as error:
        return Finding("warn", "sessions", f"the read-only login does not work: {error}")
    finally:
        engine.dispose()
    if not old:
        return Finding("ok", "sessions", "no transaction of the read-only login is older than a minute")
    pids = ", ".join(map(str, old))
    message = f"{len(old)} transactions of the read-only login are older than a minute (process {pids})"
    return Finding("warn", "sessions", f"{message}; ask whose they are, or end them with pg_terminate_backend")


def _schema(connection: sa.Connection, specs: Mapping[str, StreamSpec]) -> list[Finding]:
    current, head = current_revision(connection), head_revision()
    if current != head:
        message = f"it is at {current or 'no schema'}, not {head}; run `pipeline-platform migrate`"
        return [Finding("fail", "schema", message)]
    differing = differences(connection)
    changes = [change.sentence for spec in specs.values() for change in plan_changes(connection, spec).changes]
    found = [Finding("ok", "schema", f"at {head}")]
    if differing:
        found = [
            Finding("fail", "schema", f"tables differ from the code: {differing[0]}; somebody changed them by hand")
        ]
    if changes:
        found.append(Finding("fail", "streams", f"{'; '.join(changes)}; run `pipeline-platform migrate`"))
    else:
        found.append(Finding("ok", "streams", f"{len(specs)} declared, and their tables are as declared"))
    return found


def _queue(client: redis.Redis, settings: Settings) -> list[Finding]:
    name = "Redis"
    try:
        with queue_errors():
            info: Any = client.info()
    except PlatformError as error:
        return [Finding("fail", name, f"{error} See that it runs and that REDIS_URL is right")]
    version = info.get("valkey_version") or info.get("redis_version")
    found = [Finding("ok", name, f"version {version}"), *_durable(client)]
    if info.get("aof_enabled") and info.get("aof_last_write_status", "ok") != "ok":
        found.append(Finding("fail", name, "it cannot write its append-only file; look at its disk and its log"))
    limit, used = int(info.get("maxmemory", 0)), int(info.get("used_memory", 0))
    share = used / limit if limit else 0.0
    if share >= settings.queue_memory_share:
        advice = "the gateway refuses events until runs have caught up; see `pipeline-platform status`"
        found.append(Finding("warn", "queue memory", f"{share:.0%} of its limit is used: {advice}"))
    else:
        of = f"{share:.0%} of {limit / 2**20:.0f} MiB" if limit else f"{used / 2**20:.0f} MiB, without a limit"
        found.append(Finding("ok", "queue memory", of))
    return found


def _durable(client: redis.Redis) -> list[Finding]:
    name = "durability"
    try:
        configured: Any = client.config_get("*")
    except redis.RedisError:
        settings = ", ".join(f"{setting} {wanted}" for setting, (wanted, _) in DURABLE.items())
        return [Finding("warn", name, f"the server does not tell its settings; see yourself that it has {settings}")]
    found = [
        Finding("warn", name, f"NOT DURABLE: {setting} is {configured.get(setting)!r}, not {wanted!r}: {lost}")
        for setting, (wanted, lost) in DURABLE.items()
        if configured.get(setting) != wanted
    ]
    return found or [Finding("ok", name, "append-only, synced on every write, nothing is evicted")]


def _position(stream: str, queue: RedisStreams, ledger: Ledger) -> Finding:
    """Whether the queue still has what the ledger counts on, and will be read on from where the ledger is."""
    name = f"queue of {stream}"
    try:
        # The ledger first: what is planned meanwhile is in the queue for longer.
        planned, unsettled = ledger.last_planned(stream), ledger.unsettled(stream)
        position = queue.position(stream)
        if planned != ZERO and position.last_id < planned and (position.entries or position.last_id != ZERO):
            return Finding(
                "fail",
                name,
                f"it is at {position.last_id}, behind the ledger's {planned}: an old copy was restored, or the clock "
                "went back. See docs/operations.md, 'The queue went backwards'",
            )
        first = unsettled[0].first_id if unsettled else None
        lost = first is not None and (position.oldest_id is None or position.oldest_id > first)
        if lost and {row.id for row in ledger.unsettled(stream)} & {row.id for row in unsettled[:1]}:
            return Finding("fail", name, f"entries from {first} on are planned but no longer there; restore the queue")
    except PlatformError as error:
        return Finding("fail", name, str(error))
    return Finding("ok", name, f"{position.events:,} events wait, {len(unsettled)} batches are in flight")


def _reconciled(engine: sa.Engine, spec: StreamSpec) -> list[Finding]:
    """The last minutes' facts against their aggregates and against the ledger."""
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    since, until = minute - RECENT, minute + spec.policies.future_tolerance + timedelta(minutes=2)
    until = until.replace(second=0, microsecond=0)
    found = []
    try:
        for what, agreement in (
            ("windows equal their facts", minutes_equal_facts(engine, spec, since, until)),
            ("batches equal the ledger", facts_equal_ledger(engine, spec, since)),
        ):
            name = f"{spec.name} reconciled"
            if agreement.holds:
                found.append(Finding("ok", name, f"{agreement.compared} {what} (last 15 minutes)"))
            else:
                message = f"{agreement.differences[0]} ({len(agreement.differences)} differences); please report it"
                found.append(Finding("fail", name, message))
    except PlatformError as error:
        found.append(Finding("fail", f"{spec.name} reconciled", str(error)))
    return found


def _gateway(where: Connections, *, running: bool) -> Finding:
    away = "fail" if running else "warn"
    with requests.Session() as session:
        session.trust_env = not is_loopback(where.gateway_url)
        try:
            reply = session.get(f"{where.gateway_url}/readyz", timeout=10)
        except requests.RequestException:
            message = f"{where.gateway_url} does not answer; see its log, or start it with `pipeline-platform up`"
            return Finding("fail" if away == "fail" else "warn", "gateway", message)
    if reply.status_code == 200:
        return Finding("ok", "gateway", f"{where.gateway_url} is ready")
    try:
        reasons = " ".join(map(str, reply.json().get("reasons", [])))
    except (ValueError, AttributeError):
        reasons = ""
    return Finding("fail", "gateway", f"{where.gateway_url} is not ready ({reply.status_code}). {reasons}".strip())
