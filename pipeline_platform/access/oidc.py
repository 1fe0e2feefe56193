"""Single sign-on by OpenID Connect: code flow with PKCE, a nonce, and a state bound to the browser.

Needs the extra `[oidc]`; imported only where an issuer is set.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import requests
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.requests_client import OAuth2Session
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from pipeline_platform.access.config import OidcConfig
from pipeline_platform.access.groups import person, role_in
from pipeline_platform.access.identity import Identity
from pipeline_platform.access.roles import Role
from pipeline_platform.access.single_sign_on import Began, SignOnError
from pipeline_platform.errors import TransientError

# Signed with the provider's private key. Never `none`, and no HS*: a shared secret's owner is no proof of the provider.
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
DISCOVERY = "/.well-known/openid-configuration"
LEEWAY = 30  # seconds that the clocks may differ
_PATIENCE = 5.0
_KEEP_SECONDS, _AGAIN_SECONDS = 3600.0, 30.0
_MOST_BYTES = 2**20
_LOCAL = ("http://127.0.0.1:", "http://localhost:")


@dataclass(frozen=True, slots=True)
class _Provider:
    authorize: str
    token: str
    jwks: str
    read_at: float


class OidcProvider:
    """One identity provider. The methods wait for it, for seconds; call them in a thread."""

    def __init__(
        self, config: OidcConfig, roles: Mapping[str, Role], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._config = config
        self._roles = dict(roles)
        self._clock = clock
        self._lock = threading.Lock()
        self._provider: _Provider | None = None
        self._keys: tuple[float, KeySet] | None = None

    def url(self, began: Began, redirect: str) -> str:
        """Where the browser is sent to log in."""
        with self._session(redirect) as session:
            url, _ = session.create_authorization_url(
                self._discovered().authorize, state=began.state, nonce=began.nonce, code_verifier=began.verifier
            )
        return str(url)

    def identify(self, code: str, began: Began, redirect: str) -> tuple[Identity, str]:
        """Whom the provider names for the code, and its own unchanging name for them (`sub`).

        Raises SignOnError when it names nobody whom we can believe, or somebody without a role.
        """
        provider = self._discovered()
        try:
            with self._session(redirect) as session:
                token: Mapping[str, Any] = session.fetch_token(
                    provider.token, grant_type="authorization_code", code=code, code_verifier=began.verifier
                )
        except requests.RequestException as error:
            raise TransientError("The identity provider cannot be reached.") from error
        except (AuthlibBaseError, ValueError) as error:
            raise SignOnError(f"code refused ({type(error).__name__})") from error
        claims = self._claims(str(token.get("id_token", "")), began, str(token.get("access_token", "")))
        return self._identity(claims)

    def _claims(self, id_token: str, began: Began, access_token: str) -> Mapping[str, Any]:
        try:
            decoded = self._decoded(id_token)
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {
                    "iss": {"essential": True, "value": self._config.issuer},
                    "aud": {"essential": True, "value": self._config.client_id},
                },
                {"nonce": began.nonce, "client_id": self._config.client_id, "access_token": access_token},
            )
            claims.validate(leeway=LEEWAY)
        except (JoseError, AuthlibBaseError, ValueError, TypeError) as error:
            raise SignOnError(f"ID token refused ({type(error).__name__})") from error
        return dict(decoded.claims)

    def _decoded(self, id_token: str) -> jwt.Token:
        """The token, if one of the provider's keys has signed it. A key that we do not know may be a new one."""
        try:
            return jwt.decode(id_token, self._key_set(_KEEP_SECONDS), algorithms=list(ALGORITHMS))
        except (JoseError, ValueError):
            return jwt.decode(id_token, self._key_set(_AGAIN_SECONDS), algorithms=list(ALGORITHMS))

    def _identity(self, claims: Mapping[str, Any]) -> tuple[Identity, str]:
        subject = str(claims.get("sub", ""))[:200]
        name = person(claims.get("preferred_username")) or person(claims.get("email")) or person(subject)
        groups = claims.get(self._config.groups_claim, [])
        listed = groups.split() if isinstance(groups, str) else groups if isinstance(groups, list) else []
        role = role_in([group for group in listed if isinstance(group, str)], self._roles)
        if name is None or role is None:
            raise SignOnError("no group with a role", name or "", no_role=True)
        return Identity(name, role, "oidc"), subject

    def _session(self, redirect: str) -> Any:
        return OAuth2Session(
            self._config.client_id,
            self._config.client_secret or None,
            scope=self._config.scopes,
            redirect_uri=redirect,
            code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if self._config.client_secret else "none",
            default_timeout=_PATIENCE,
        )

    def _discovered(self) -> _Provider:
        with self._lock:
            known = self._provider
            if known is None or self._clock() - known.read_at > _KEEP_SECONDS:
                found = self._fetched(self._config.issuer.rstrip("/") + DISCOVERY)
                if found.get("issuer") != self._config.issuer:
                    raise TransientError("The identity provider calls itself another name than PIPELINE_OIDC_ISSUER.")
                urls = [str(found.get(name)) for name in ("authorization_endpoint", "token_endpoint", "jwks_uri")]
                if not all(map(self._trustworthy, urls)):
                    raise TransientError("The identity provider has addresses without TLS; they are not used.")
                known = self._provider = _Provider(urls[0], urls[1], urls[2], self._clock())
            return known

    def _key_set(self, keep: float) -> KeySet:
        url = self._discovered().jwks
        with self._lock:
            if self._keys is None or self._clock() - self._keys[0] > keep:
                self._keys = (self._clock(), KeySet.import_key_set(self._fetched(url)))  # type: ignore[arg-type]
            return self._keys[1]

    def _trustworthy(self, url: str) -> bool:
        return url.startswith("https://") or (url.startswith(_LOCAL) and self._config.issuer.startswith(_LOCAL))

    def _fetched(self, url: str) -> dict[str, Any]:
        if not self._trustworthy(url):
            raise TransientError("The identity provider's address has no TLS; PIPELINE_OIDC_ISSUER begins with https.")
        try:
            with requests.get(url, timeout=_PATIENCE, allow_redirects=False, stream=True) as answer:
                answer.raise_for_status()
                body = answer.raw.read(_MOST_BYTES + 1, decode_content=True)
            document = orjson.loads(body) if len(body) <= _MOST_BYTES else None
        except (requests.RequestException, ValueError, OSError) as error:
            raise TransientError("The identity provider cannot be reached.") from error
        if not isinstance(document, dict):
            raise TransientError("The identity provider does not answer with what it should.")
        return document
