"""Who is at the door: API keys, sessions and logins of one server process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from starlette.requests import HTTPConnection

from pipeline_platform.access.addresses import ClientAddresses
from pipeline_platform.access.answers import AnswerCache
from pipeline_platform.access.audit import Audit
from pipeline_platform.access.credentials import one_cookie, presented_token
from pipeline_platform.access.errors import TooManyTriesError
from pipeline_platform.access.identity import Identity, Via
from pipeline_platform.access.names import OurNames
from pipeline_platform.access.passwords import PasswordChecks
from pipeline_platform.access.refusals import Refusal
from pipeline_platform.access.roles import Role, role_of
from pipeline_platform.access.single_sign_on import SingleSignOn
from pipeline_platform.errors import QueueRefusedError, QueueUnavailableError, TransientError
from pipeline_platform.queue.key_uses import KeyUses
from pipeline_platform.queue.keys import Key, KeyStore, token_id
from pipeline_platform.queue.sessions import Session, SessionStore
from pipeline_platform.warehouse.users import is_user_name

COOKIE = "pp_session"
WINDOW = 60.0  # tries are counted by the minute
TRIES_OF_ADDRESS = 10
TRIES_OF_NAME = 20  # more than an address has: somebody else's tries should seldom lock a user out
CODES_OF_ADDRESS = 30
FAILED_SECONDS = 1.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class User:
    """What a login needs of a user. Sessions that began under another `stamp` are over."""

    name: str
    digest: str
    role: Role
    stamp: str
    disabled: bool = False


class Users(Protocol):
    """The users of the platform; raises a TransientError while they cannot be read."""

    def find(self, name: str) -> User | None: ...

    def close(self) -> None: ...


class HeaderIdentities(Protocol):
    """Identities that a proxy in front vouches for."""

    def identify(self, conn: HTTPConnection) -> Identity | None: ...


class Doorkeeper:
    """Says who sends a request, and makes and ends sessions. Redis away: a TransientError, never a guess."""

    def __init__(
        self,
        sessions: SessionStore,
        keys: KeyStore,
        names: OurNames,
        *,
        audit: Audit,
        users: Users | None = None,
        addresses: ClientAddresses | None = None,
        headers: HeaderIdentities | None = None,
        sign_on: SingleSignOn | None = None,
        uses: KeyUses | None = None,
        idle: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.names = names
        self.audit = audit
        self.sign_on = sign_on
        self._sessions = sessions
        self._keys = keys
        self._uses = uses
        self._users = users
        self._addresses = addresses or ClientAddresses(())
        self._headers = headers
        self._passwords = PasswordChecks()
        self._threads = ThreadPoolExecutor(4, "access")
        self._clock = clock
        self._failed_at = float("-inf")
        self._answers = AnswerCache(clock, touch_every=idle / 20)

    async def identify(self, conn: HTTPConnection, *, touch: bool = True) -> Identity | None:
        """Who sends this; None for nobody. A token decides alone, then the cookie, then a trusted proxy's header.

        What was asked within the last two seconds is not asked again. A TransientError while nobody can say.
        """
        if token := presented_token(conn):
            return await self._answered(f"token {token}", lambda: self.of_token(token), touch=False)
        if cookie := self.cookie_of(conn):
            known = await self._answered(cookie, lambda: self._of_session(cookie, touch), touch=touch)
            if known is not None:
                return known
        return self._headers.identify(conn) if self._headers else None

    async def _answered(self, secret: str, ask: Callable[[], Identity | None], *, touch: bool) -> Identity | None:
        slot = self._answers.slot(secret)
        fresh = self._answers.fresh(slot, touch=touch)
        if fresh is not None:
            return fresh
        try:
            found = await self._ask(ask)
        except (TransientError, QueueRefusedError):
            lately = self._answers.lately(slot)
            if lately is None:
                raise
            return lately
        self._answers.keep(slot, found, touch=touch)
        return found

    def of_token(self, token: str) -> Identity | None:
        """The identity behind an API key's token."""
        key = self._keys.all_hashes().get(token_id(token) or "")
        if key is None or not key.matches(token):
            return None
        if self._uses is not None:
            self._uses.note(key.id)
            with suppress(TransientError, QueueRefusedError):
                self._uses.flush()  # once a minute for each key
        return of_key(key, "key")

    def _of_session(self, cookie: str, touch: bool) -> Identity | None:
        session = self._sessions.read(cookie, touch=touch)
        found = self._behind(session) if session else None
        if session and found is None:  # its key or user is no more: it must not come back with them
            self._sessions.end(cookie)
        return found

    def _behind(self, session: Session) -> Identity | None:
        if session.via in ("key", "link"):
            key = self._keys.all_hashes().get(session.key_id)
            return of_key(key, "link" if session.via == "link" else "key")
        if session.via == "user":
            user = self._users.find(session.name) if self._users else None
            good = user is not None and not user.disabled and user.stamp == session.stamp
            return Identity(user.name, user.role, "user") if user and good else None
        return Identity(session.name, Role(session.role), "oidc")

    async def login(self, address: str, name: str, secret: str) -> str | None:
        """A new session's cookie for a user's password, or for an API key when `name` is empty; None when it is wrong.

        TooManyTriesError and BusyError when the login is not even looked at.
        """
        name = name.strip().lower()[:64]
        limits = {f"address:{address}": TRIES_OF_ADDRESS} | ({f"name:{name}": TRIES_OF_NAME} if name else {})
        # People type their password into the wrong field, too: what cannot be a name is not kept.
        who = f"user {name if is_user_name(name) else '?'}" if name else f"key {token_id(secret) or 'unknown'}"
        await self._count(limits, address, who)
        session = await (self._of_password(name, secret) if name else self._ask(lambda: self._of_key(secret)))
        return await self._begin(session, address, who, "password" if name else "key")

    async def login_with_code(self, address: str, code: str) -> str | None:
        """A new session's cookie for a one-time code, which is used up; None when there is no such code."""
        await self._count({f"codes:{address}": CODES_OF_ADDRESS}, address, "link")
        key_id = await self._ask(lambda: self._sessions.take_code(code))
        session = await self._ask(lambda: self._of_code(key_id)) if key_id else None
        return await self._begin(session, address, f"key {key_id}" if key_id else "link", "link")

    async def admit(self, identity: Identity, address: str, *, subject: str) -> str:
        """A new session's cookie for somebody whom an identity provider has vouched for, as its `subject`."""
        session = Session("oidc", name=identity.name, role=identity.role)
        cookie = await self._begin(session, address, identity.actor, "oidc", subject)
        assert cookie is not None
        return cookie

    async def count_visit(self, address: str) -> None:
        """Counts a step of single sign-on; TooManyTriesError beyond an address's limit."""
        await self._count({f"codes:{address}": CODES_OF_ADDRESS}, address, "oidc")

    async def logout(self, cookie: str, *, who: Identity | None = None, address: str = "") -> None:
        """Ends the session, here at once and elsewhere within two seconds."""
        self._answers.forget(self._answers.slot(cookie))
        await self._ask(lambda: self._sessions.end(cookie))
        self._answers.forget(self._answers.slot(cookie))  # a request may have asked meanwhile
        if who is not None:
            self.audit.record("logout", actor=who.actor, role=who.role, address=address)

    def cookie_name(self, conn: HTTPConnection) -> str:
        """The cookie's name: behind TLS one that only a page of this very host, over TLS, can have set."""
        return f"__Host-{COOKIE}" if self.names.secure(conn) else COOKIE

    def cookie_of(self, conn: HTTPConnection) -> str:
        """The session's cookie that the request brings; empty without one."""
        return one_cookie(conn, self.cookie_name(conn))

    def address_of(self, conn: HTTPConnection) -> str:
        """The client's address, as the trusted proxies tell it."""
        forwarded = ",".join(conn.headers.getlist("x-forwarded-for"))
        return self._addresses.of(conn.client.host if conn.client else "", forwarded.encode("latin-1"))

    def close(self) -> None:
        """Ends the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._passwords.close()
        if self._users:
            self._users.close()
        if self.sign_on:
            self.sign_on.close()

    async def _of_password(self, name: str, secret: str) -> Session | None:
        find = self._users.find if self._users else lambda _: None
        user = await self._ask(lambda: find(name))
        right = await self._passwords.matches(user.digest if user else None, secret)
        return Session("user", name=user.name, stamp=user.stamp) if user and right and not user.disabled else None

    def _of_key(self, token: str) -> Session | None:
        identity = self.of_token(token)
        return Session("key", key_id=identity.key_id) if identity else None

    def _of_code(self, key_id: str) -> Session | None:
        identity = of_key(self._keys.all_hashes().get(key_id), "link")
        return Session("link", key_id=key_id) if identity else None

    async def _count(self, limits: dict[str, int], address: str, who: str) -> None:
        wait = await self._ask(lambda: self._sessions.count_try(limits, WINDOW))
        if wait:
            self.audit.refused(Refusal("login-refused", address, "too many tries", actor=who))
            raise TooManyTriesError(wait)

    async def _begin(self, session: Session | None, address: str, who: str, how: str, subject: str = "") -> str | None:
        if session is None:
            self.audit.record("login-refused", actor=who, outcome="refused", address=address, detail={"how": how})
            return None
        cookie = await self._ask(lambda: self._sessions.begin(session))
        detail = {"how": how} | ({"subject": subject} if subject else {})
        self.audit.record("login", actor=who, address=address, detail=detail)
        return cookie

    async def _ask(self, work: Callable[[], T]) -> T:
        """Asks in a thread. After a failure nobody asks for a second: requests must not queue for a silent server."""
        if self._clock() - self._failed_at < FAILED_SECONDS:
            raise QueueUnavailableError("Logins cannot be checked for now.")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except TransientError:
            self._failed_at = self._clock()
            raise


def of_key(key: Key | None, via: Via) -> Identity | None:
    """The identity of an API key; None of one that is revoked or expired, or only for some streams or for sending."""
    if key is None or key.revoked_at is not None or key.expired() or key.streams is not None:
        return None  # a session sees every stream
    role = role_of(key.scopes)
    return Identity(f"key {key.id}", role, via, key.id) if role else None
