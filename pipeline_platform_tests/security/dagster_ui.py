"""The Dagster UI of a running platform, asked by people of every kind."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import requests

from pipeline_platform.queue.connection import connect
from pipeline_platform.queue.keys import KeyStore, token_id
from pipeline_platform.queue.sessions import Session, SessionStore
from pipeline_platform_tests.acceptance.stacks import Up

SCOPES = {"ingest": ["ingest"], "viewer": ["read"], "operator": ["operate"], "admin": ["admin"]}
SELECTOR = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "pipeline_platform",
    "pipelineName": "check_streams",
}
LAUNCH = """mutation Launch($params: ExecutionParams!) { launchRun(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""


@dataclass
class Person:
    """Somebody with a key, a session, or neither."""

    base: str
    headers: dict[str, str] = field(default_factory=dict)
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        return self.base

    def ask(self, method: str, path: str, **more: Any) -> requests.Response:
        headers = {**self.headers, **more.pop("headers", {})}
        return requests.request(
            method, self.base + path, headers=headers, cookies=self.cookies, allow_redirects=False, timeout=30, **more
        )

    def post(self, query: str, **variables: Any) -> requests.Response:
        """GraphQL, as the UI sends it: a browser says where the page came from."""
        origin = {"Origin": self.origin} if self.cookies else {}
        return self.ask("POST", "/graphql", json={"query": query, "variables": variables}, headers=origin)

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = self.post(query, **variables)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert "errors" not in found, found
        data: dict[str, Any] = found["data"]
        return data

    def launch(self, tags: dict[str, str] | None = None) -> dict[str, Any]:
        """Starts the checks of all streams."""
        pairs = [{"key": key, "value": value} for key, value in (tags or {}).items()]
        params = {"selector": SELECTOR, "executionMetadata": {"tags": pairs}}
        answer: dict[str, Any] = self.graphql(LAUNCH, params=params)["launchRun"]
        return answer


@dataclass
class Doors:
    """Keys and sessions of every role at one Dagster UI."""

    base: str
    keys: dict[str, str]
    redis_url: str

    @classmethod
    def of(cls, up: Up) -> Doors:
        where = json.loads((up.state_dir / "connections.json").read_text())
        client = connect(where["redis_url"])
        try:
            made = {name: KeyStore(client).create(f"test {name}", scopes)[1] for name, scopes in SCOPES.items()}
        finally:
            client.close()
        return cls(f"http://127.0.0.1:{up.dagster_port}", made, where["redis_url"])

    def anonymous(self) -> Person:
        return Person(self.base)

    def key(self, name: str) -> Person:
        return Person(self.base, {"Authorization": f"Bearer {self.keys[name]}"})

    def session(self, name: str) -> Person:
        return Person(self.base, cookies={"pp_session": self.cookie(self.keys[name])})

    def cookie(self, token: str) -> str:
        """A session's, begun without the login page, which bounds how often one may try."""
        client = connect(self.redis_url)
        try:
            return SessionStore(client, absolute=3600, idle=3600).begin(Session("key", key_id=token_id(token) or ""))
        finally:
            client.close()

    def forget_tries(self) -> None:
        """Nobody has tried to log in before: other tests have, and too many tries a minute are refused."""
        client = connect(self.redis_url)
        try:
            for tries in client.scan_iter("pp:login-tries:*"):
                client.delete(tries)
        finally:
            client.close()

    def log_in(self, secret: str) -> requests.Response:
        """By the login page, as a browser does it."""
        self.forget_tries()
        form = {"name": "", "secret": secret}
        headers = {"Origin": self.base}
        return requests.post(f"{self.base}/login", form, headers=headers, allow_redirects=False, timeout=30)
