"""The two routes of single sign-on: /login/oidc and /login/oidc/callback."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from pipeline_platform.access.credentials import one_cookie
from pipeline_platform.access.doorkeeper import Doorkeeper
from pipeline_platform.access.refusals import Refusal
from pipeline_platform.access.single_sign_on import SECONDS, SignOnError, SingleSignOn

BEGIN, BACK = "/login/oidc", "/login/oidc/callback"
NO_ROLE = "None of your groups may look at this. Ask whoever runs it for a group with a role."
REFUSED = "Single sign-on did not work out. Start again from this page."
_COOKIE = "pp_oidc"


async def begin(door: Doorkeeper, sign_on: SingleSignOn, request: Request, following: str) -> Response:
    """Sends the browser to the provider."""
    await door.count_visit(door.address_of(request))
    url, browser = await sign_on.begin(following, _redirect(door, request))
    answer = RedirectResponse(url, 303, {"Cache-Control": "no-store"})
    tls = door.names.secure(request)
    answer.set_cookie(_name(tls), browser, max_age=SECONDS, path="/", secure=tls, httponly=True, samesite="lax")
    return answer


async def finish(door: Doorkeeper, sign_on: SingleSignOn, request: Request) -> tuple[str, str]:
    """The new session's cookie, and where the login leads. Raises SignOnError, which is in the audit by then."""
    address = door.address_of(request)
    await door.count_visit(address)
    asked = request.query_params
    try:
        if len(asked.multi_items()) != len(asked) or "code" not in asked or "state" not in asked:
            raise SignOnError("no code and state")
        browser = one_cookie(request, _name(door.names.secure(request)))
        found = await sign_on.finish(asked["state"][:200], asked["code"][:2000], browser, _redirect(door, request))
    except SignOnError as error:
        door.audit.refused(Refusal("login-refused", address, error.reason, actor=f"oidc {error.name}".strip()))
        raise
    identity, subject, following = found
    return await door.admit(identity, address, subject=subject), following


def forget(door: Doorkeeper, request: Request, answer: Response) -> Response:
    """The answer, with the browser's cookie of this login taken away."""
    tls = door.names.secure(request)
    answer.delete_cookie(_name(tls), path="/", secure=tls, httponly=True, samesite="lax")
    return answer


def _redirect(door: Doorkeeper, request: Request) -> str:
    scheme = "https" if door.names.secure(request) else "http"
    return f"{scheme}://{quote(request.headers['host'].lower(), safe=':[]')}{BACK}"


def _name(tls: bool) -> str:
    return f"__Host-{_COOKIE}" if tls else _COOKIE
