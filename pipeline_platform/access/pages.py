"""The routes of a login, the same in both web servers: /login, /login/code, /logout, /whoami."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from pipeline_platform.access.doorkeeper import Doorkeeper
from pipeline_platform.access.errors import BusyError, TooManyTriesError
from pipeline_platform.access.identity import Identity
from pipeline_platform.access.login_page import POLICY, known_page, login_page
from pipeline_platform.access.page_route import PageRoute
from pipeline_platform.access.sign_on_pages import BACK, BEGIN, NO_ROLE, REFUSED, begin, finish, forget
from pipeline_platform.access.single_sign_on import SignOnError
from pipeline_platform.core.media_types import content_codings, utf8_type
from pipeline_platform.errors import QueueRefusedError, TransientError

_TOLD = frozenset({"OPTIONS"})
_LOOKED_AT = _TOLD | {"GET", "HEAD"}
_SENT = _TOLD | {"POST"}
# With their methods: what else is asked there is the app's own business, and closed.
OPEN_PATHS: Mapping[str, frozenset[str]] = {
    "/login": _LOOKED_AT | _SENT,
    "/login/code": _SENT,
    "/logout": _SENT,
    BEGIN: _LOOKED_AT,
    BACK: _LOOKED_AT,
    "/whoami": _TOLD,
}
MAX_BODY = 4096
BODY_SECONDS = 10.0
FORM = "application/x-www-form-urlencoded"
_SAME_SITE = re.compile(r"/(?![/\\])[!-\[\]-~]*\Z")  # a path of ours: no //host, no backslash, no control characters
_MAX_NEXT = 2000

_log = logging.getLogger(__name__)

WRONG = "That did not match. Check the user and the password or key."
USED = "This link was used already, or is too old. Run `pipeline-platform login` for a new one."
AWAY = "Logins cannot be checked for now. Try again in a few seconds."


class BadFormError(Exception):
    """A body that is no login form: the status and a sentence."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class LoginPages:
    """The endpoints; `routes` goes in front of the app's own, behind a Gate that lets OPEN_PATHS through."""

    def __init__(self, doorkeeper: Doorkeeper) -> None:
        self._doorkeeper = doorkeeper

    @property
    def routes(self) -> list[PageRoute]:
        """The routes, one a path."""
        return [
            PageRoute("/login", GET=self.show, POST=self.log_in),
            PageRoute("/login/code", POST=self.log_in_with_code),
            PageRoute(BEGIN, GET=self.sign_on),
            PageRoute(BACK, GET=self.signed_on),
            PageRoute("/logout", POST=self.log_out),
            PageRoute("/whoami", GET=self.who_am_i),
        ]

    async def show(self, request: Request) -> Response:
        """The form; or who one is, for somebody who is logged in."""
        following = same_site(request.query_params.get("next", ""))
        if (identity := _identity(request)) is not None:
            return _html(known_page(identity, following))
        return self._form("You are logged out." if "out" in request.query_params else "", following=following)

    async def log_in(self, request: Request) -> Response:
        """A user's password, or an API key without a name."""
        return await self._attempt(request, with_code=False)

    async def log_in_with_code(self, request: Request) -> Response:
        """A one-time code, from the fragment of a link."""
        return await self._attempt(request, with_code=True)

    async def sign_on(self, request: Request) -> Response:
        """Sends the browser to the identity provider."""
        following = same_site(request.query_params.get("next", ""))
        if (sign_on := self._doorkeeper.sign_on) is None:
            return self._form("Single sign-on is not set up here.", status=404, following=following)
        try:
            return await begin(self._doorkeeper, sign_on, request, following)
        except (TransientError, QueueRefusedError) as error:
            return self._not_now(error, following=following)

    async def signed_on(self, request: Request) -> Response:
        """Takes the browser back from the identity provider."""
        if (sign_on := self._doorkeeper.sign_on) is None:
            return self._form("Single sign-on is not set up here.", status=404)
        try:
            cookie, following = await finish(self._doorkeeper, sign_on, request)
        except SignOnError as error:
            refused = self._form(NO_ROLE if error.no_role else REFUSED, status=403 if error.no_role else 401)
            return forget(self._doorkeeper, request, refused)
        except (TransientError, QueueRefusedError) as error:
            return self._not_now(error)
        await self._end_old(request)
        return forget(self._doorkeeper, request, self.entered(request, cookie, following))

    async def log_out(self, request: Request) -> Response:
        """Ends the session; there need not be one."""
        cookie = self._doorkeeper.cookie_of(request)
        try:
            address = self._doorkeeper.address_of(request)
            await self._doorkeeper.logout(cookie, who=_identity(request), address=address)
        except (TransientError, QueueRefusedError):
            return self._form(AWAY, status=503)
        return self._with_cookie(request, RedirectResponse("/login?out", 303), "", 0)

    async def who_am_i(self, request: Request) -> Response:
        """Name, role, and how we know."""
        identity = _identity(request)
        if identity is None:
            return JSONResponse({"error": "Log in first, or send an API key."}, 401)
        document = {"name": identity.name, "role": identity.role.value, "via": identity.via}
        return JSONResponse(document, headers={"Cache-Control": "no-store"})

    async def _attempt(self, request: Request, *, with_code: bool) -> Response:
        door, address = self._doorkeeper, self._doorkeeper.address_of(request)
        name = following = ""
        try:
            form = await read_form(request)
            following, name = same_site(form.get("next", "")), form.get("name", "")[:64]
            if with_code:
                cookie = await door.login_with_code(address, form.get("code", ""))
            else:
                secret = form.get("secret", "")  # blanks around a key come from copying; in a password they are meant
                cookie = await door.login(address, name, secret if name else secret.strip())
        except BadFormError as error:
            return self._form(str(error), status=error.status)
        except (TransientError, QueueRefusedError) as error:
            return self._not_now(error, name=name, following=following)
        if cookie is None:
            return self._form(USED if with_code else WRONG, status=401, name=name, following=following)
        await self._end_old(request)
        return self.entered(request, cookie, following)

    async def _end_old(self, request: Request) -> None:
        if old := self._doorkeeper.cookie_of(request):
            with contextlib.suppress(TransientError, QueueRefusedError):  # then it ends by itself
                await self._doorkeeper.logout(old)

    def _not_now(self, error: Exception, *, name: str = "", following: str = "/") -> Response:
        if isinstance(error, TooManyTriesError):
            wait = {"Retry-After": str(int(error.seconds) + 1)}
            return self._form(str(error), status=429, name=name, following=following, headers=wait)
        _log.warning("a login could not be looked at: %s", error)
        said = str(error) if isinstance(error, BusyError) else AWAY
        return self._form(said, status=503, name=name, following=following, headers={"Retry-After": "2"})

    def entered(self, request: Request, cookie: str, following: str) -> Response:
        """The answer to a login that succeeded."""
        return self._with_cookie(request, RedirectResponse(following, 303), cookie, None)

    def _with_cookie(self, request: Request, response: Response, cookie: str, age: int | None) -> Response:
        door = self._doorkeeper
        name, tls = door.cookie_name(request), door.names.secure(request)
        response.set_cookie(name, cookie, max_age=age, path="/", secure=tls, httponly=True, samesite="lax")
        response.headers["Cache-Control"] = "no-store"
        return response

    def _form(
        self,
        said: str,
        *,
        status: int = 200,
        name: str = "",
        following: str = "/",
        headers: dict[str, str] | None = None,
    ) -> Response:
        sign_on = self._doorkeeper.sign_on is not None
        page = login_page(said=said, bad=status != 200, name=name, following=following or "/", oidc=sign_on)
        return _html(page, status, headers)


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form of at most 4 KiB that arrives within ten seconds."""
    headers = request.headers
    if utf8_type(headers.get("content-type", "")) != FORM or content_codings(headers.get("content-encoding", "")):
        raise BadFormError(415, f"Send the form as {FORM}, in UTF-8.")
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BODY:
                    raise BadFormError(413, "The form is too large.")
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=10)
    except TimeoutError:
        raise BadFormError(408, "The form did not arrive in time.") from None
    except (ClientDisconnect, ValueError):
        raise BadFormError(400, "The form cannot be read.") from None
    if len(dict(fields)) != len(fields):
        raise BadFormError(400, "The form has a field twice.")
    return dict(fields)


def same_site(path: str) -> str:
    """`path` if it leads to a page of ours, otherwise the front page."""
    return path if len(path) <= _MAX_NEXT and _SAME_SITE.match(path) else "/"


def _identity(request: Request) -> Identity | None:
    identity = request.scope.get("identity")
    return identity if isinstance(identity, Identity) else None


def _html(page: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    fixed = {"Content-Security-Policy": POLICY, "Cache-Control": "no-store"}
    return HTMLResponse(page, status, {**fixed, **(headers or {})})
