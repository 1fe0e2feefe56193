"""Users: the commands, whom they let in and put out, and who may read the table."""

from __future__ import annotations

import asyncio
import getpass
import io
from collections.abc import Callable, Iterator

import psycopg
import pytest
import redis
import sqlalchemy as sa

from pipeline_platform.access.building import build_doorkeeper
from pipeline_platform.access.config import AccessConfig
from pipeline_platform.access.doorkeeper import Doorkeeper
from pipeline_platform.access.identity import Identity
from pipeline_platform.access.password_rules import check_password
from pipeline_platform.access.roles import Role
from pipeline_platform.access.user_book import UserBook
from pipeline_platform.errors import WarehouseUnavailableError
from pipeline_platform.local.logins import Login, settle_login
from pipeline_platform.local.ports import free_port
from pipeline_platform.warehouse.engine import connect
from pipeline_platform_tests.integration.test_cli import conftest as cli
from pipeline_platform_tests.integration.test_cli.kit import Done, run
from pipeline_platform_tests.security import access_kit
from pipeline_platform_tests.security.access_kit import Journal
from pipeline_platform_tests.security.test_sessions import visit

template_database, servers, client = cli.template_database, cli.servers, access_kit.client
GOOD = "seven green bottles"


@pytest.fixture
def users(servers: cli.Stack) -> Callable[..., Done]:
    """Runs `pipeline-platform users ...` on the test's stack."""

    def command(*arguments: str, password: str = "") -> Done:
        more = ["--password-stdin"] if password else []
        return run("users", *arguments, *more, "--state-dir", servers.folder, stdin=f"{password}\n")

    return command


@pytest.fixture
def doorkeeper(servers: cli.Stack) -> Iterator[Doorkeeper]:
    """What a server of that stack has, by the loader's login."""
    owner = servers.where.warehouse_url
    settle_login(owner, Login("loader_of_users", member_of="pipeline_loader"), "secret")
    loader = sa.make_url(owner).set(username="loader_of_users", password="secret")
    config = AccessConfig(
        servers.where.redis_url, 3000, users_url=loader.render_as_string(hide_password=False), idle_seconds=60
    )
    made = build_doorkeeper(config, Journal())
    yield made
    made.close()


def test_a_users_day(users: Callable[..., Done], doorkeeper: Doorkeeper) -> None:
    """Added, logs in, changes, is put out; each within two seconds."""

    async def main() -> None:
        assert users("add", "Otto", "--role", "operator", password=GOOD).code == 0
        assert await doorkeeper.login("127.0.0.1", "otto", "something else") is None
        cookie = await doorkeeper.login("127.0.0.1", "otto", GOOD) or ""
        assert await doorkeeper.identify(visit(cookie)) == Identity("otto", Role.OPERATOR, "user")

        users("role", "otto", "viewer")
        await asyncio.sleep(2.1)
        assert await doorkeeper.identify(visit(cookie)) == Identity("otto", Role.VIEWER, "user")

        users("password", "otto", password=GOOD + " more")
        await asyncio.sleep(2.1)
        assert await doorkeeper.identify(visit(cookie)) is None
        assert await doorkeeper.login("127.0.0.1", "otto", GOOD) is None
        cookie = await doorkeeper.login("127.0.0.1", "otto", GOOD + " more") or ""

        users("disable", "otto")
        users("enable", "otto")  # before anybody has looked
        await asyncio.sleep(2.1)
        assert await doorkeeper.identify(visit(cookie)) is None
        users("disable", "otto")
        assert await doorkeeper.login("127.0.0.1", "otto", GOOD + " more") is None
        users("enable", "otto")
        assert await doorkeeper.login("127.0.0.1", "otto", GOOD + " more")

    asyncio.run(main())


def test_the_list_shows_everything_but_digests(users: Callable[..., Done]) -> None:
    users("add", "vera", password=GOOD)
    users("add", "otto", "--role", "admin", password=GOOD)
    users("disable", "vera")
    listed = users("list", "--json")
    assert [(each["name"], each["role"], bool(each["disabled_at"])) for each in listed.document] == [
        ("otto", "admin", False),
        ("vera", "viewer", True),
    ]
    assert listed.document[0]["created_by"] == f"os {getpass.getuser()}"
    assert "argon2" not in listed.out + users("list").out
    assert "otto" in users("list").out


def test_each_change_is_in_the_audit_and_no_password(users: Callable[..., Done], servers: cli.Stack) -> None:
    users("add", "otto", "--role", "operator", password=GOOD)
    users("role", "otto", "viewer")
    users("password", "otto", password=GOOD + "!")
    users("disable", "Otto")
    users("enable", "otto")
    users("disable", "nobody")
    actor = f"os {getpass.getuser()}"
    with psycopg.connect(servers.where.warehouse_url) as connection:
        told = connection.execute("select event, actor, detail from audit order by id").fetchall()
    assert told == [
        ("user-added", actor, {"user": "otto", "role": "operator"}),
        ("user-role", actor, {"user": "otto", "role": "viewer"}),
        ("user-password", actor, {"user": "otto"}),
        ("user-disabled", actor, {"user": "otto"}),
        ("user-enabled", actor, {"user": "otto"}),
    ]


@pytest.mark.parametrize(
    ("name", "password", "says"),
    [
        ("otto", "elevenchars", "too short"),
        ("otto", "Password12345", "tried first"),
        ("otto", "aaaaaaaaaaaaaa", "tried first"),
        ("otto", "otto1otto1otto1", "user's name"),
        ("otto", "abababababab", "tried first"),
        ("otto", "234567890123", "tried first"),
        ("otto", "x" * 300, "too long"),
        ("ot to", GOOD, "cannot be a user's name"),
        ("../etc", GOOD, "cannot be a user's name"),
    ],
)
def test_what_is_refused_is_said_in_words(users: Callable[..., Done], name: str, password: str, says: str) -> None:
    done = users("add", name, password=password)
    assert done.code == 1
    assert says in done.error
    assert users("list", "--json").document == []


@pytest.mark.parametrize(
    "password", ["correct horse battery", "ääääöööüüü ßßß", "🦆🦆 swim 🦆🦆 home", "x" * 64 + "yz" * 9]
)
def test_long_passwords_of_anything_are_taken(password: str) -> None:
    assert check_password(password, "otto") == password


def test_a_user_is_added_once_and_unknown_ones_are_named(users: Callable[..., Done]) -> None:
    users("add", "otto", password=GOOD)
    assert "already" in users("add", "OTTO", password=GOOD).error
    for command in (("role", "anna", "admin"), ("disable", "anna"), ("enable", "anna")):
        assert "There is no user 'anna'" in users(*command).error
    assert "There is no user 'anna'" in users("password", "anna", password=GOOD).error
    assert users("role", "otto", "boss").code == 2


def test_the_password_is_asked_for_twice(users: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    answers = [GOOD, GOOD + "!", GOOD, GOOD]
    monkeypatch.setattr(getpass, "getpass", lambda prompt: answers.pop(0))
    monkeypatch.setattr("pipeline_platform.cli.users.sys", _System(Terminal()))
    assert "not the same" in users("add", "otto").error
    assert users("add", "otto").code == 0


class _System:
    """`sys` with another standard input."""

    def __init__(self, stdin: io.StringIO) -> None:
        self.stdin = stdin


def test_without_a_terminal_the_option_is_named(users: Callable[..., Done]) -> None:
    assert "--password-stdin" in users("add", "otto").error


def test_the_reader_may_not_see_users_and_the_loader_may_only_look(servers: cli.Stack) -> None:
    owner = servers.where.warehouse_url
    for group in ("reader", "loader"):
        settle_login(owner, Login(f"{group}_of_users", member_of=f"pipeline_{group}"), "secret")
    for group, statement, may in (
        ("reader", "select name from users", False),
        ("loader", "select name from users", True),
        ("loader", "insert into users (name, digest, role, created_by) values ('x', 'x', 'admin', 'x')", False),
        ("loader", "update users set role = 'admin'", False),
        ("loader", "delete from users", False),
    ):
        url = sa.make_url(owner).set(username=f"{group}_of_users", password="secret")
        with psycopg.connect(url.render_as_string(hide_password=False)) as connection:
            if may:
                connection.execute(statement.encode())
            else:
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    connection.execute(statement.encode())


def test_users_that_cannot_be_read_are_no_refusal_and_are_not_asked_for_at_once_again() -> None:
    now = 0.0
    book = UserBook(connect(f"postgresql://x@127.0.0.1:{free_port()}/x"), clock=lambda: now)
    for moment in (0.0, 0.5, 1.5):
        now = moment
        with pytest.raises(WarehouseUnavailableError, match="for now" if moment == 0.5 else "cannot be reached"):
            book.find("otto")
    book.close()


def test_login_prints_a_link_that_works_once(servers: cli.Stack, doorkeeper: Doorkeeper, client: redis.Redis) -> None:
    printed = run("login", "--state-dir", servers.folder)
    base, _, code = printed.out.strip().partition("/login#code=")
    assert base == servers.where.dagster_url
    assert run("login", "--gateway", "--state-dir", servers.folder).out.startswith(servers.where.gateway_url)

    async def main() -> None:
        cookie = await doorkeeper.login_with_code("127.0.0.1", code) or ""
        identity = await doorkeeper.identify(visit(cookie))
        assert identity is not None
        assert (identity.role, identity.via) == (Role.ADMIN, "link")
        assert await doorkeeper.login_with_code("127.0.0.1", code) is None

    asyncio.run(main())


def test_login_with_a_key_that_is_none_says_what_to_do(servers: cli.Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_API_KEY", "pp_00000000_" + "x" * 32)
    assert "keys create" in run("login", "--state-dir", servers.folder).error
