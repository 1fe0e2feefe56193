"""The two web servers that the table of routes is held against, and what is in them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import dagster
import dagster_webserver
import orjson
import psycopg

from pipeline_platform.local.postgres import PostgresServer
from pipeline_platform.queue.connection import connect as connect_queue
from pipeline_platform.queue.redis_streams import RedisStreams
from pipeline_platform.settings import Settings
from pipeline_platform.warehouse.engine import connect
from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.integration.batches import rows
from pipeline_platform_tests.integration.test_gateway.kit import GOOD, ROOMY, Client, Pipeline, serving
from pipeline_platform_tests.security.route_callers import (
    A_FEW,
    CALLERS,
    SOCKET,
    Answer,
    Caller,
    Keyring,
    Route,
    exchange,
    filled,
)
from pipeline_platform_tests.security.route_table import FORM, Row

WHY = {"type", "title", "status", "detail", "instance", "parameter", "error"}  # the members of a refusal
CORS = "access-control-"


@dataclass
class Server:
    """A web server, what is in it, and what of that is of value. `state` changes when a request changes something."""

    port: int
    keyring: Keyring
    known: dict[str, str]
    values: list[str]
    state: Callable[[], object]

    def ask(self, route: Route, row: Row, caller: Caller, asset: str = "") -> Answer:
        """The caller asks for the route."""
        method, path = route
        self.keyring.forget_tries()
        known = self.known | {"read token": self.keyring.tokens["read"], "code": self.keyring.code()}
        headers, body = self.keyring.headers(caller, self.port), None
        if method == SOCKET:
            headers += [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
            headers += [("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="), ("Sec-WebSocket-Protocol", "graphql-ws")]
        elif isinstance(row.body, str):
            body = filled(row.body, known).encode()
            headers.append(("Content-Type", FORM))
        elif row.body is not None:
            body = orjson.dumps(row.body)
            headers.append(("Content-Type", "application/json"))
        at = filled(row.at or path, known | ({"asset": asset} if asset else {}))
        return exchange(self.port, "GET" if method == SOCKET else method, at, headers, body)

    def complaints(self, route: Route, row: Row) -> list[str]:
        """Everybody asks; what is not as the table says."""
        found = []
        for caller in A_FEW if route[0] == "OPTIONS" else CALLERS:
            expected, before = row.expects(route[0], caller), self.state()
            answer = self.ask(route, row, caller)
            if answer.status != expected:
                wrong = [f"{answer.status} instead of {expected}: {answer.text[:300]}"]
            elif expected == row.status:
                shows = filled(row.shows, self.known)
                seen = answer.text == shows if row.probe else shows in answer.text
                wrong = [] if seen else [f"does not see {shows}: {answer.text[:300]}"]
            else:
                wrong = self.leaks(answer, row.at or route[1])
                wrong += [] if self.state() == before else ["was refused, and changed something all the same"]
            wrong += [f"is told {name}" for name, _ in answer.headers if name.startswith(CORS)]
            found += [f"{caller.name}: {each}" for each in wrong]
        return found

    def leaks(self, answer: Answer, path: str) -> list[str]:
        """What a refusal says that it need not."""
        text = answer.text.replace(filled(path, self.known).partition("?")[0], "")
        found = [f"a refusal holds {value}" for value in self.values if value in text]
        if answer.header("set-cookie"):
            found.append("a refusal sets a cookie")
        if answer.header("content-type").endswith("json") and answer.body:
            document = json.loads(answer.body)
            found += [f"a refusal has {name}" for name in set(document) - WHY]
        elif not answer.header("content-type").startswith("text/plain") and answer.body:
            found.append(f"a refusal is {answer.header('content-type')}")
        return found + ([f"a refusal of {len(answer.body)} bytes"] if len(answer.body) > 600 else [])


@contextmanager
def gateway_with_all(postgres: PostgresServer, template: str, redis_url: str) -> Iterator[Server]:
    """A gateway with something of every kind in it."""
    name = f"routes_{uuid.uuid4().hex}"
    with psycopg.connect(postgres.url(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}".encode())
    urls = {"database_url": postgres.url(name), "redis_url": redis_url}
    engine, client = connect(urls["database_url"]), connect_queue(urls["redis_url"])
    client.flushdb()
    keyring, pipeline = Keyring.of(client), Pipeline(engine, RedisStreams(client))
    with serving(Settings.load(**urls, **ROOMY)) as base:
        admin = Client(base, keyring.tokens["admin"])
        letters = [{"payload": "payload-of-value"}] * 2
        sender = Client(base, keyring.tokens["ingest"])
        receipt = sender.post([{**GOOD, "source": "source-of-value"}, *letters]).json()["receipt"]
        [batch] = pipeline.plan("telemetry")
        pipeline.start(batch, "run-of-value")
        pipeline.load(batch, "run-of-value")
        first, second = (row[0] for row in rows(engine, "select id from dead_letters order by id"))
        begun = admin.http.post(
            f"{base}/v1/dead-letters/replay", json={"ids": [first], "note": "note-of-value"}, timeout=30
        )
        admin.close()
        sender.close()
        values = {"source": "source-of-value", "payload": "payload-of-value", "run": "run-of-value"}
        values |= {"note": "note-of-value", "actor": f"key {keyring.tokens['admin'].split('_')[1]}"}
        replay = begun.json()["replay"]["id"]
        known = {"receipt": receipt, "asset": str(batch.id), "letter": str(second), "replay": str(replay)}

        count = "select (select count(*) from replays), (select count(*) from dead_letters where state = 'open')"

        def state() -> object:
            return client.xlen("pp:{telemetry}:entries"), rows(engine, count)

        port = urlsplit(base).port
        assert port is not None
        yield Server(port, keyring, known | values, list(values.values()), state)
    client.close()
    engine.dispose()


@contextmanager
def ui_of(up: Up) -> Iterator[Server]:
    """The Dagster UI of the running platform."""
    client = connect_queue(json.loads((up.state_dir / "connections.json").read_text())["redis_url"])
    build = Path(dagster_webserver.__file__).parent / "webapp" / "build"
    files = {
        f"{folder} file": next(str(path.relative_to(build / f)) for path in sorted((build / f).rglob("*.js")))
        for folder, f in (("vendor", "vendor"), ("next", "_next"))
    }
    run = up.graphql("{ runsOrError(limit: 1) { ... on Runs { results { runId } } } }")["runsOrError"]["results"][0]
    known = {"run": str(run["runId"]), "version": dagster.__version__, "asset": "table"} | files
    values = [dagster.__version__, known["run"], "telemetry", "__repository__", "&middot;", "warehouse"]
    yield Server(up.dagster_port, Keyring.of(client), known, values, lambda: None)
    client.close()
