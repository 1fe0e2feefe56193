"""Sessions: what is kept of them, when they end, and what happens while Redis is away."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from urllib.parse import urlsplit

import argon2
import pytest
import redis
from starlette.requests import HTTPConnection

from pipeline_platform.access.answers import AWAY_SECONDS, FRESH_SECONDS, AnswerCache
from pipeline_platform.access.doorkeeper import TRIES_OF_ADDRESS, TRIES_OF_NAME, Doorkeeper, User
from pipeline_platform.access.errors import BusyError, TooManyTriesError
from pipeline_platform.access.identity import Identity
from pipeline_platform.access.links import one_time_link
from pipeline_platform.access.names import OurNames
from pipeline_platform.access.passwords import AT_ONCE, NOBODY, WAITING, PasswordChecks, digest_of
from pipeline_platform.access.roles import Role, role_of, scopes_of
from pipeline_platform.errors import QueueUnavailableError, TransientError
from pipeline_platform.local.valkey import ValkeyServer
from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import Key, KeyStore
from pipeline_platform.queue.sessions import Session, SessionStore, hash_of
from pipeline_platform_tests.faults.proxy import Proxy, Weather
from pipeline_platform_tests.security import access_kit
from pipeline_platform_tests.security.access_kit import Journal, key, make_doorkeeper

client = access_kit.client
NAMES = OurNames(["http://127.0.0.1:3000"])


def visit(cookie: str = "", *, token: str = "", twice: bool = False) -> HTTPConnection:
    """A request with a cookie, or a token."""
    headers = [(b"host", b"127.0.0.1:3000")]
    if cookie:
        headers.append((b"cookie", f"pp_session={cookie}".encode()))
    if twice:
        headers.append((b"cookie", b"pp_session=planted"))
    if token:
        headers.append((b"authorization", f"Bearer {token}".encode()))
    return HTTPConnection({"type": "http", "headers": headers, "client": ("127.0.0.1", 1)})


class Clock:
    """A time that the test sets."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(client: redis.Redis) -> SessionStore:
    """Sessions of an hour."""
    return SessionStore(client, absolute=3600, idle=3600)


@pytest.mark.parametrize(
    ("scopes", "role"),
    [
        ({"ingest"}, None),
        ({"read"}, Role.VIEWER),
        ({"operate"}, Role.OPERATOR),
        ({"read", "operate", "ingest"}, Role.OPERATOR),
        ({"admin"}, Role.ADMIN),
        (set(), None),
    ],
)
def test_a_keys_scopes_make_its_role(scopes: set[str], role: Role | None) -> None:
    assert role_of(scopes) == role


def test_a_role_has_the_scopes_that_make_it_and_all_lesser_ones() -> None:
    for role in Role:
        assert role_of(scopes_of(role)) is role
    assert scopes_of(Role.VIEWER) < scopes_of(Role.OPERATOR) < scopes_of(Role.ADMIN)
    assert Role.ADMIN.may(Role.VIEWER)
    assert not Role.VIEWER.may(Role.OPERATOR)


def test_redis_keeps_hashes_and_nothing_that_logs_in(client: redis.Redis, store: SessionStore) -> None:
    cookie, code = store.begin(Session("key", key_id="12345678")), store.make_code("12345678")
    kept = b"".join(name + client.get(name) for name in client.scan_iter())
    assert cookie.encode() not in kept
    assert code.encode() not in kept
    assert hash_of(cookie).encode() in kept


def test_a_session_ends_when_it_is_not_used(client: redis.Redis) -> None:
    store = SessionStore(client, absolute=60, idle=0.5)
    used, unused = (store.begin(Session("key", key_id="12345678")) for _ in range(2))
    ended = threading.Event()
    for _ in range(8):  # 0.8 s, in which one of them is used
        assert store.read(used) is not None
        ended.wait(0.1)
    assert store.read(unused) is None


def test_a_session_ends_however_it_is_used(client: redis.Redis) -> None:
    clock = Clock()
    store = SessionStore(client, absolute=100, idle=60, clock=clock)
    cookie = store.begin(Session("key", key_id="12345678"))
    clock.now += 99
    assert store.read(cookie) is not None
    clock.now += 2
    assert store.read(cookie) is None


def test_looking_is_no_use(client: redis.Redis) -> None:
    store = SessionStore(client, absolute=60, idle=60)
    cookie = store.begin(Session("key", key_id="12345678"))
    slot = client.keys("pp:session:*")[0]
    client.pexpire(slot, 10_000)
    store.read(cookie, touch=False)
    assert client.pttl(slot) <= 10_000
    store.read(cookie)
    assert client.pttl(slot) > 50_000


def test_a_code_is_good_once_however_many_try_at_once(store: SessionStore) -> None:
    code = store.make_code("12345678")
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(store.take_code(code))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, found)) == ["12345678"] + ["None"] * 7


def test_a_code_ends_after_a_quarter_of_an_hour(client: redis.Redis, store: SessionStore) -> None:
    store.make_code("12345678")
    assert 890 < int(client.ttl(client.keys("pp:login-code:*")[0])) <= 900


def test_two_cookies_that_differ_are_none(redis_url: str, client: redis.Redis) -> None:
    async def main() -> None:
        doorkeeper = make_doorkeeper(redis_url, NAMES)
        cookie = await doorkeeper.login("127.0.0.1", "", key(client, "read")[1])
        assert cookie
        assert await doorkeeper.identify(visit(cookie)) is not None
        assert await doorkeeper.identify(visit(cookie, twice=True)) is None

    asyncio.run(main())


@pytest.mark.parametrize("ending", ["revoke", "logout", "gone"])
def test_a_session_ends_everywhere_within_two_seconds(redis_url: str, client: redis.Redis, ending: str) -> None:
    async def main() -> None:
        here, there = (make_doorkeeper(redis_url, NAMES) for _ in range(2))
        key_id, token = key(client, "read")
        cookie = await here.login("127.0.0.1", "", token)
        assert cookie
        for doorkeeper in (here, there):
            assert await doorkeeper.identify(visit(cookie)) == Identity(f"key {key_id}", Role.VIEWER, "key", key_id)
        if ending == "revoke":
            KeyStore(client).revoke(key_id)
        elif ending == "gone":
            client.hdel("pp:keys", key_id)
        else:
            await here.logout(cookie)
            assert await here.identify(visit(cookie)) is None  # at once
        await asyncio.sleep(FRESH_SECONDS + 0.1)
        for doorkeeper in (here, there):
            assert await doorkeeper.identify(visit(cookie)) is None
            assert await doorkeeper.identify(visit(token=token)) is None or ending == "logout"
        assert client.keys("pp:session:*") == []

    asyncio.run(main())


def test_a_key_that_may_only_send_is_no_login_any_more(redis_url: str, client: redis.Redis) -> None:
    async def main() -> None:
        doorkeeper = make_doorkeeper(redis_url, NAMES)
        key_id, token = key(client, "ingest", "read")
        assert await doorkeeper.login("127.0.0.1", "", token)
        record = json.loads(client.hget("pp:keys", key_id) or b"")
        client.hset("pp:keys", key_id, json.dumps({**record, "scopes": ["ingest"]}))
        assert await doorkeeper.login("127.0.0.1", "", token) is None

    asyncio.run(main())


class Book:
    """Users of a test."""

    def __init__(self, *users: User) -> None:
        self.users = {user.name: user for user in users}
        self.away = False

    def close(self) -> None:
        """Nothing is open."""

    def find(self, name: str) -> User | None:
        """As the warehouse's."""
        if self.away:
            raise TransientError("The warehouse cannot be reached.")
        return self.users.get(name)


OTTO = User("otto", digest_of("a long enough password"), Role.OPERATOR, "1")


@pytest.mark.parametrize(
    "now",
    [
        None,
        User("otto", OTTO.digest, Role.OPERATOR, "1", disabled=True),
        User("otto", OTTO.digest, Role.OPERATOR, "2"),
    ],
    ids=["gone", "disabled", "new stamp"],
)
def test_a_users_session_ends_with_the_user_and_does_not_come_back(redis_url: str, now: User | None) -> None:
    async def main() -> None:
        book = Book(OTTO)
        doorkeeper = make_doorkeeper(redis_url, NAMES, users=book)
        cookie = await doorkeeper.login("127.0.0.1", "Otto ", "a long enough password")
        assert cookie
        assert await doorkeeper.identify(visit(cookie)) == Identity("otto", Role.OPERATOR, "user")
        book.users = {"otto": now} if now else {}
        await asyncio.sleep(FRESH_SECONDS + 0.1)
        assert await doorkeeper.identify(visit(cookie)) is None
        book.users = {"otto": OTTO}
        assert await doorkeeper.identify(visit(cookie)) is None

    asyncio.run(main())


def test_a_new_role_counts_within_two_seconds(redis_url: str) -> None:
    async def main() -> None:
        book = Book(OTTO)
        doorkeeper = make_doorkeeper(redis_url, NAMES, users=book)
        cookie = await doorkeeper.login("127.0.0.1", "otto", "a long enough password") or ""
        book.users = {"otto": User("otto", OTTO.digest, Role.VIEWER, "1")}
        await asyncio.sleep(FRESH_SECONDS + 0.1)
        found = await doorkeeper.identify(visit(cookie))
        assert found is not None
        assert found.role is Role.VIEWER

    asyncio.run(main())


@pytest.mark.parametrize(("name", "most"), [("otto", TRIES_OF_ADDRESS), ("", TRIES_OF_ADDRESS)])
def test_beyond_the_tries_of_an_address_even_the_right_one_is_refused(
    redis_url: str, client: redis.Redis, name: str, most: int
) -> None:
    async def main() -> None:
        journal = Journal()
        doorkeeper = make_doorkeeper(redis_url, NAMES, users=Book(OTTO), journal=journal)
        right = "a long enough password" if name else key(client, "read")[1]
        for _ in range(most):
            assert await doorkeeper.login("192.0.2.1", name, "wrong") is None
        with pytest.raises(TooManyTriesError) as caught:
            await doorkeeper.login("192.0.2.1", name, right)
        assert 0 < caught.value.seconds <= 60
        assert await doorkeeper.login("192.0.2.2", name, right)  # another address
        assert [line[0] for line in journal.lines] == ["login-refused"] * (most + 1) + ["login"]

    asyncio.run(main())


def test_beyond_the_tries_of_a_name_other_addresses_are_refused_too(redis_url: str) -> None:
    async def main() -> None:
        doorkeeper = make_doorkeeper(redis_url, NAMES, users=Book(OTTO))
        for number in range(TRIES_OF_NAME):
            assert await doorkeeper.login(f"192.0.2.{number}", "otto", "wrong") is None
        with pytest.raises(TooManyTriesError):
            await doorkeeper.login("192.0.2.99", "OTTO", "a long enough password")

    asyncio.run(main())


def test_tries_at_the_same_time_are_all_counted_and_end_by_themselves(client: redis.Redis, store: SessionStore) -> None:
    waits: list[float] = []
    threads = [threading.Thread(target=lambda: waits.append(store.count_try({"address:x": 5}, 60))) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(wait > 0 for wait in waits) == 7
    assert all(int(client.pttl(slot)) > 0 for slot in client.keys("pp:login-tries:*"))


def test_an_unknown_user_costs_one_hash_as_a_known_one_does(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def verify(digest: str, password: str) -> bool:
        hashed.append(digest[:40])
        return False

    monkeypatch.setattr("pipeline_platform.access.passwords._verify", verify)

    async def main() -> None:
        doorkeeper = make_doorkeeper(redis_url, NAMES, users=Book(OTTO))
        for name in ("otto", "nobody"):
            assert await doorkeeper.login("127.0.0.1", name, "wrong") is None

    asyncio.run(main())
    assert len(hashed) == 2
    assert hashed[0].rsplit("$", 1)[0] == hashed[1].rsplit("$", 1)[0]  # the same costs


def test_hashes_are_two_at_a_time_and_the_line_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    running, most, go = 0, 0, threading.Event()
    lock = threading.Lock()

    def verify(digest: str, password: str) -> bool:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        go.wait(10)
        with lock:
            running -= 1
        return True

    monkeypatch.setattr("pipeline_platform.access.passwords._verify", verify)

    async def main() -> None:
        checks = PasswordChecks()
        line = [asyncio.create_task(checks.matches("digest", "x")) for _ in range(AT_ONCE + WAITING)]
        await asyncio.sleep(0.3)
        with pytest.raises(BusyError):
            await checks.matches("digest", "x")
        go.set()
        assert all(await asyncio.gather(*line))
        assert await checks.matches("digest", "x")  # and there is room again
        checks.close()

    asyncio.run(main())
    assert most == AT_ONCE


def test_the_cache_is_bounded_and_keeps_no_refusals() -> None:
    clock = Clock()
    cache = AnswerCache(clock, touch_every=100)
    for number in range(6000):
        slot = cache.slot(str(number))
        cache.keep(slot, Identity("x", Role.VIEWER, "key"), touch=True)
        cache.keep(cache.slot(f"wrong {number}"), None, touch=True)
    assert len(cache) == 4096
    assert cache.fresh(slot, touch=True) is not None
    clock.now += FRESH_SECONDS + 0.1
    assert cache.fresh(slot, touch=True) is None
    assert cache.lately(slot) is not None
    clock.now += AWAY_SECONDS
    assert cache.lately(slot) is None


def test_what_only_looks_does_not_keep_a_session_from_being_used() -> None:
    clock = Clock()
    cache = AnswerCache(clock, touch_every=5)
    slot, identity = cache.slot("x"), Identity("x", Role.VIEWER, "key")
    cache.keep(slot, identity, touch=True)
    for _ in range(6):  # a socket that is looked at every second
        clock.now += 1
        cache.keep(slot, identity, touch=False)
    assert cache.fresh(slot, touch=False) is not None
    assert cache.fresh(slot, touch=True) is None


def test_while_redis_is_away_those_known_stay_for_a_while_and_nobody_comes_in(
    redis_url: str, client: redis.Redis
) -> None:
    async def main() -> None:
        clock = Clock()
        proxy, doorkeeper = cut_off(redis_url, clock)
        token = key(client, "read")[1]
        cookie = await doorkeeper.login("127.0.0.1", "", token) or ""
        known = await doorkeeper.identify(visit(cookie))
        assert known is not None
        proxy.weather = Weather(freeze=1.0)
        clock.now += FRESH_SECONDS + 0.1
        assert await doorkeeper.identify(visit(cookie)) == known
        for stranger in (visit("another"), visit(token=token)):
            with pytest.raises(QueueUnavailableError):
                await doorkeeper.identify(stranger)
        with pytest.raises(QueueUnavailableError):
            await doorkeeper.login("127.0.0.1", "", token)
        clock.now += AWAY_SECONDS
        with pytest.raises(QueueUnavailableError):
            await doorkeeper.identify(visit(cookie))

    asyncio.run(main())


def test_while_redis_is_silent_requests_do_not_queue_for_it(
    redis_url: str, client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        clock = Clock()
        proxy, doorkeeper = cut_off(redis_url, clock)
        token = key(client, "read")[1]
        asked = 0
        read = KeyStore.all_hashes

        def counting(store: KeyStore) -> dict[str, Key]:
            nonlocal asked
            asked += store is doorkeeper._keys  # a gateway of other tests may live in this process
            return read(store)

        monkeypatch.setattr(KeyStore, "all_hashes", counting)
        proxy.weather = Weather(freeze=1.0)
        for _ in range(20):
            with pytest.raises(QueueUnavailableError):
                await doorkeeper.identify(visit(token=token))
        assert asked == 1
        clock.now += 1.1
        with pytest.raises(QueueUnavailableError):
            await doorkeeper.identify(visit(token=token))
        assert asked == 2

    asyncio.run(main())


def test_a_user_cannot_be_looked_at_while_the_warehouse_is_away(redis_url: str) -> None:
    async def main() -> None:
        clock, book = Clock(), Book(OTTO)
        doorkeeper = make_doorkeeper(redis_url, NAMES, users=book, clock=clock)
        cookie = await doorkeeper.login("127.0.0.1", "otto", "a long enough password") or ""
        assert await doorkeeper.identify(visit(cookie)) is not None
        book.away = True
        clock.now += FRESH_SECONDS + 0.1
        assert await doorkeeper.identify(visit(cookie)) is not None
        clock.now += AWAY_SECONDS
        with pytest.raises(TransientError):
            await doorkeeper.identify(visit(cookie))
        book.away = False
        clock.now += 2
        assert await doorkeeper.identify(visit(cookie)) is not None

    asyncio.run(main())


def cut_off(redis_url: str, clock: Clock) -> tuple[Proxy, Doorkeeper]:
    """A doorkeeper whose way to Redis can be closed."""
    parts = urlsplit(redis_url)
    assert parts.hostname
    assert parts.port
    proxy = Proxy(parts.hostname, parts.port, random.Random(1))
    through = redis_url.replace(f":{parts.port}/", f":{proxy.port}/")
    return proxy, make_doorkeeper(through, NAMES, clock=clock, timeout=1.0)


@pytest.mark.parametrize("user", ["gateway", "web"])
def test_the_servers_own_queue_users_may_do_all_of_it(valkey_server: ValkeyServer, user: str) -> None:
    with connect(valkey_server.url(0)) as admin:
        admin.flushdb()
        token = key(admin, "admin")[1]
        link = one_time_link(admin, "", token)

        async def main() -> None:
            doorkeeper = make_doorkeeper(valkey_server.url(0, user), NAMES, idle=60)
            assert await doorkeeper.login_with_code("127.0.0.1", link.partition("=")[2])
            cookie = await doorkeeper.login("127.0.0.1", "", token) or ""
            admin.pexpire(f"pp:session:{hash_of(cookie)}", 10_000)  # so that its use has to be noted
            assert await doorkeeper.identify(visit(cookie)) is not None
            assert int(admin.pttl(f"pp:session:{hash_of(cookie)}")) > 50_000
            assert await doorkeeper.identify(visit(token=token)) is not None
            await doorkeeper.logout(cookie)
            assert await doorkeeper.identify(visit(cookie)) is None
            doorkeeper.close()

        asyncio.run(main())
        with connect(valkey_server.url(0, user)) as client:
            store = SessionStore(client, absolute=60, idle=60)
            store.keep_state("state", b"kept", 60)
            assert store.take_state("state") == b"kept"
            assert store.take_state("state") is None
        admin.flushdb()


def test_whoever_is_unknown_is_compared_at_todays_costs() -> None:
    ours, today = (argon2.extract_parameters(digest) for digest in (NOBODY, digest_of("x")))
    assert ours == today
