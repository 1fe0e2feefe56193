"""The users of the embedded Valkey: each can do its work, and not what would make it another (finding F8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from kombu import Connection

from pipeline_platform.core.budgets import Allowance
from pipeline_platform.core.entries import EntryId
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform.local.valkey_users import RULES
from pipeline_platform.queue.budgets import RedisBudget
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import KeyStore
from pipeline_platform.queue.limits import Limit, TokenBuckets
from pipeline_platform.queue.protocol import Appended, NewEntry
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.queue.workers import WorkerBoard

STREAM = "acl"
As = Callable[..., Any]  # redis-py does not type `execute_command`

# What nobody but the admin may, whatever its work: commands that end, configure, look around, or run code that stays.
DANGEROUS: tuple[tuple[str, ...], ...] = (
    ("CONFIG", "GET", "*"), ("CONFIG", "SET", "maxmemory", "1"), ("CONFIG", "REWRITE"), ("FLUSHALL",), ("FLUSHDB",),
    ("ACL", "LIST"), ("ACL", "SETUSER", "default", "on"), ("SHUTDOWN", "NOSAVE"), ("DEBUG", "SLEEP", "0"),
    ("KEYS", "*"), ("MONITOR",), ("CLIENT", "LIST"), ("CLIENT", "KILL", "TYPE", "normal"), ("CLIENT", "PAUSE", "1"),
    ("REPLICAOF", "127.0.0.1", "1"), ("SWAPDB", "0", "1"), ("BGREWRITEAOF",), ("SAVE",), ("MODULE", "LIST"),
    ("FUNCTION", "LOAD", "#!lua name=x\n"), ("FUNCTION", "FLUSH"), ("SCRIPT", "FLUSH"), ("SCRIPT", "KILL"),
    ("RESTORE", "pp:x", "0", "x"), ("MIGRATE", "127.0.0.1", "1", "x", "0", "1"),
)  # fmt: skip
KEYS: tuple[tuple[str, ...], ...] = (
    ("HSET", "pp:keys", "0badcafe", "{}"), ("HDEL", "pp:keys", "x"), ("DEL", "pp:keys"), ("SET", "pp:keys", "x"),
    ("RENAME", "pp:keys", "pp:session:x"), ("RENAME", "pp:session:x", "pp:keys"), ("EXPIRE", "pp:keys", "1"),
    ("COPY", "pp:session:x", "pp:keys"), ("UNLINK", "pp:keys"), ("HSETNX", "pp:keys", "x", "{}"),
    ("EVAL", "return redis.call('HSET', 'pp:keys', 'x', '{}')", "0"),
    ("EVAL", "return redis.call('HSET', KEYS[1], 'x', '{}')", "1", "pp:keys"),
    ("RESTORE", "pp:keys", "0", "x"), ("SORT", "pp:session:x", "STORE", "pp:keys"),
)  # fmt: skip
EVENTS: tuple[tuple[str, ...], ...] = (
    ("DEL", "pp:{acl}:entries"), ("XADD", "pp:{acl}:entries", "*", "n", "1"), ("XRANGE", "pp:{acl}:entries", "-", "+"),
    ("XTRIM", "pp:{acl}:entries", "MAXLEN", "0"), ("HSET", "pp:{acl}:totals", "events", "0"),
)  # fmt: skip
TASKS: tuple[tuple[str, ...], ...] = (
    ("LPUSH", "ingest", "x"), ("RPUSH", "etl", "x"), ("LRANGE", "ingest", "0", "-1"), ("DEL", "unacked"),
    ("SADD", "_kombu.binding.ingest", "x"),
    ("EVAL", "return redis.call('LPUSH', 'ingest', 'x')", "0"), ("SET", "x", "x"), ("GET", "pp:keys"),
)  # fmt: skip
TAKING: tuple[tuple[str, ...], ...] = (
    ("DEL", "pp:{acl}:entries"), ("XTRIM", "pp:{acl}:entries", "MAXLEN", "0"), ("XDEL", "pp:{acl}:entries", "0-1"),
    ("RENAME", "pp:{acl}:entries", "pp:session:x"), ("EXPIRE", "pp:{acl}:entries", "1"),
    ("HSET", "pp:workers", "x", "x"),
    ("MOVE", "pp:session:x", "1"), ("COPY", "pp:session:x", "pp:session:y", "DB", "1"),
)  # fmt: skip
SESSIONS: tuple[tuple[str, ...], ...] = (
    ("HSET", "pp:session:x", "role", "admin"), ("SET", "pp:login:x", "x"), ("HGETALL", "pp:session:x"),
    ("HGETALL", "pp:keys"), ("HSET", "pp:key-used", "x", "1"),
)  # fmt: skip
CALL = (("PUBLISH", "/1.celery.pidbox", "x"), ("SUBSCRIBE", "/1.celery.pidbox"))  # Celery's remote control
OF_DATABASE_0 = {
    "gateway": DANGEROUS + KEYS + TASKS + TAKING + CALL,
    "workers": DANGEROUS + KEYS + SESSIONS + TASKS,
    "daemon": DANGEROUS + KEYS + SESSIONS + TASKS,
    "web": DANGEROUS + KEYS + EVENTS + TASKS + TAKING,
}
OF_DATABASE_1 = {
    "gateway": TASKS + KEYS + SESSIONS + (("PING",),),
    "workers": DANGEROUS,
    "daemon": DANGEROUS,
    "web": DANGEROUS,
}


@pytest.fixture
def as_user(valkey_server: ValkeyServer) -> Iterator[As]:
    """Clients by user and database number. Both databases are emptied: nothing else uses 0 and 1."""
    made: list[redis.Redis] = []

    def client(user: str = "admin", database: int = 0) -> Any:
        made.append(connect(valkey_server.url(database, user)))
        return made[-1]

    for number in (0, 1):
        client(database=number).flushdb()
    client().execute_command("ACL", "LOG", "RESET")
    yield client
    for number in (0, 1):
        client(database=number).flushdb()
    for each in made:
        each.close()


def _denied(client: Any, command: tuple[str, ...]) -> bool:
    try:
        client.execute_command(*command)
    except redis.exceptions.NoPermissionError:
        return True
    except redis.ResponseError as error:  # a script tells what it was denied in its own words
        # DEBUG is off for everybody, and says so first.
        return any(word in str(error) for word in ("permission", "ACL failure", "DEBUG command not allowed"))
    return False


@pytest.mark.parametrize("user", sorted(OF_DATABASE_0))
def test_a_user_is_refused_what_is_not_its_work(as_user: As, user: str) -> None:
    KeyStore(as_user()).create("first", ["read"])
    before = as_user().hgetall("pp:keys")
    RedisStreams(as_user()).append([NewEntry(STREAM, 1, b"{}\n", "key")])
    client = as_user(user)
    assert [command for command in OF_DATABASE_0[user] if not _denied(client, command)] == []
    assert as_user().hgetall("pp:keys") == before
    assert as_user().xlen("pp:{acl}:entries") == 1


@pytest.mark.parametrize("user", sorted(OF_DATABASE_1))
def test_a_user_is_refused_in_celerys_database_what_is_not_its_work(as_user: As, user: str) -> None:
    attempts = OF_DATABASE_1[user]
    if user == "gateway":  # it does not even get there
        with pytest.raises(redis.exceptions.NoPermissionError):
            as_user(user, 1).ping()
        client = as_user(user)
        assert _denied(client, ("SELECT", "1"))
    else:
        client = as_user(user, 1)
        assert [command for command in attempts if not _denied(client, command)] == []
    assert as_user(database=1).dbsize() == 0


@pytest.mark.parametrize("user", [*sorted(RULES), "default"])
@pytest.mark.parametrize("password", ["", "wrong"])
def test_nobody_gets_in_without_a_password(valkey_server: ValkeyServer, user: str, password: str) -> None:
    url = f"redis://{user}:{password}@{valkey_server.host}:{valkey_server.port}/0"
    with connect(url) as stranger, pytest.raises((redis.AuthenticationError, redis.exceptions.NoPermissionError)):
        stranger.ping()
    for name, right in valkey_server.passwords.items():
        if name == user:
            continue
        url = f"redis://{user}:{right}@{valkey_server.host}:{valkey_server.port}/0"
        with connect(url) as stranger, pytest.raises((redis.AuthenticationError, redis.exceptions.NoPermissionError)):
            stranger.ping()


def test_passwords_are_not_in_the_configuration(valkey_server: ValkeyServer) -> None:
    text = valkey_server.config.read_text()
    assert all(password not in text for password in valkey_server.passwords.values())
    assert len(set(valkey_server.passwords.values())) == len(RULES)


def test_every_user_does_its_work(as_user: As) -> None:
    gateway, workers, daemon, web = (as_user(user) for user in ("gateway", "workers", "daemon", "web"))
    KeyStore(as_user()).create("first", ["read"])
    _takes_events(gateway)
    _works_off(workers)
    assert RedisStreams(daemon).position(STREAM).entries == 0
    for keeper in (gateway, web):
        assert len(KeyStore(keeper).list()) == 1
        _keeps_sessions(keeper)
    assert WorkerBoard(gateway).read().slots == 2
    denied: Any = as_user().execute_command("ACL", "LOG")
    assert denied == []


def _takes_events(client: redis.Redis) -> None:
    queue = RedisStreams(client)
    answers = queue.append(
        [
            NewEntry(STREAM, 1, b'{"x":1}\n', "key"),
            NewEntry(STREAM, 1, b'{"x":1}\n', "key", "again", "hash"),
            NewEntry(STREAM, 1, b'{"x":1}\n', "key", "again", "hash"),
        ]
    )
    assert [type(answer) for answer in answers] == [Appended] * 3
    position = queue.position(STREAM)
    assert position.entries == 2
    assert len(list(queue.read(STREAM, EntryId(0, 0), position.last_id))) == 2
    assert queue.events_below(STREAM, position.last_id) == 1
    assert queue.memory_share() > 0
    assert TokenBuckets(client).lease("ip:x", Limit(10, 10), 5).granted == 5


def _works_off(client: redis.Redis) -> None:
    queue = RedisStreams(client)
    assert queue.wait(STREAM, EntryId(0, 0), 0.1)
    assert len(queue.waiting(STREAM, EntryId(0, 0), 10)) == 2
    last = queue.position(STREAM).last_id
    assert len(list(queue.read(STREAM, EntryId(0, 0), last))) == 2
    assert queue.trim(STREAM, last.next()) == 2
    WorkerBoard(client).beat("worker@here", 2, 1)
    budget = RedisBudget(client, "source", Allowance(10, 1, 5))
    budget.pause(0.001)


def _keeps_sessions(client: redis.Redis) -> None:
    with client.pipeline(transaction=True) as pipeline:
        pipeline.hset("pp:session:abc", mapping={"name": "ann", "role": "viewer"})
        pipeline.expire("pp:session:abc", 60)
        pipeline.execute()
    assert client.hgetall("pp:session:abc")[b"role"] == b"viewer"
    client.set("pp:login:abc", "x", ex=60)
    assert client.getdel("pp:login:abc") == b"x"
    client.hset("pp:key-used", "id", "1")
    assert list(client.scan_iter("pp:session:*")) == [b"pp:session:abc"]
    client.delete("pp:session:abc")


@pytest.mark.parametrize("user", ["workers", "daemon", "web"])
def test_who_launches_or_takes_runs_reaches_celerys_queues(valkey_server: ValkeyServer, as_user: As, user: str) -> None:
    with Connection(valkey_server.url(1, user)) as broker:
        queue = broker.SimpleQueue("ingest")
        queue.put({"run": 1})
        message = queue.get(timeout=5)
        assert message.payload == {"run": 1}
        message.ack()
        queue.close()
    assert as_user().execute_command("ACL", "LOG") == []
