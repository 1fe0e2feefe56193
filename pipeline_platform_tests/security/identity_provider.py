"""An identity provider of the tests' own that speaks the real protocol: discovery, authorize, token with PKCE, JWKS.

Everybody is logged in at once as `claims` say. What it does wrong is set by the test.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode

import orjson
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "pipelines", "a secret/of:the client"


@dataclass
class IdentityProvider:
    """`claims` go into the ID token, over what belongs there; None takes one away."""

    issuer: str
    claims: dict[str, Any] = field(default_factory=lambda: {"preferred_username": "anna", "groups": ["staff", "data"]})
    says_issuer: str = ""
    algorithm: str = "RS256"
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "one"}))
    signs_with: RSAKey | None = None
    unsigned: bool = False
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    token_requests: list[dict[str, str]] = field(default_factory=list)

    def app(self) -> Starlette:
        """Its endpoints."""
        return Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self.discovery),
                Route("/authorize", self.authorize),
                Route("/token", self.token, methods=["POST"]),
                Route("/jwks", self.jwks),
            ]
        )

    async def discovery(self, request: Request) -> Response:
        """Where everything is."""
        self.asked.append("discovery")
        places = {
            name: f"{self.issuer}/{path}"
            for name, path in (
                ("authorization_endpoint", "authorize"),
                ("token_endpoint", "token"),
                ("jwks_uri", "jwks"),
            )
        }
        return JSONResponse({"issuer": self.says_issuer or self.issuer, **places})

    async def authorize(self, request: Request) -> Response:
        """Sends the browser back with a code."""
        asked = dict(request.query_params)
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT
        assert "openid" in asked["scope"].split()
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe(16)
        self.codes[code] = asked
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': asked['state']})}", 302)

    async def token(self, request: Request) -> Response:
        """Gives the ID token for a code, once, to whoever has the verifier and the client's secret."""
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        self.token_requests.append(form)
        user, _, password = base64.b64decode(request.headers["authorization"].partition(" ")[2]).decode().partition(":")
        if (unquote(user), unquote(password)) != (CLIENT, SECRET):
            return JSONResponse({"error": "invalid_client"}, 401)
        asked = self.codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if (
            asked is None
            or asked["code_challenge"] != challenge.decode()
            or asked["redirect_uri"] != form["redirect_uri"]
        ):
            return JSONResponse({"error": "invalid_grant"}, 400)
        return JSONResponse(
            {
                "access_token": "access",
                "token_type": "Bearer",
                "expires_in": 60,
                "id_token": self.id_token(asked["nonce"]),
            }
        )

    async def jwks(self, request: Request) -> Response:
        """The public keys."""
        self.asked.append("jwks")
        return JSONResponse(KeySet([self.key]).as_dict(private=False))

    def id_token(self, nonce: str) -> str:
        """The signed claims."""
        now = int(time.time())
        usual = {"iss": self.issuer, "sub": "0001", "aud": CLIENT, "iat": now, "exp": now + 60, "nonce": nonce}
        claims = {name: value for name, value in {**usual, **self.claims}.items() if value is not None}
        if self.unsigned:
            return _part({"alg": "none"}) + "." + _part(claims) + "."
        if self.algorithm == "HS256":  # signed with what everybody has: the public key
            signed = _part({"alg": "HS256"}) + "." + _part(claims)
            mac = hmac.new(self.key.as_pem(private=False), signed.encode(), hashlib.sha256).digest()
            return f"{signed}.{_encoded(mac)}"
        signer = self.signs_with or self.key
        return jwt.encode({"alg": self.algorithm, "kid": signer.kid}, claims, signer, algorithms=[self.algorithm])


def _part(value: Any) -> str:
    return _encoded(orjson.dumps(value))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
