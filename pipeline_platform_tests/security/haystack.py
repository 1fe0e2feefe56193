"""Secrets of a state folder, and everything in which one of them must not stand."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import psycopg
from psycopg import sql

from pipeline_platform_tests.acceptance.stacks import Up

RESOURCES = """{ allTopLevelResourceDetailsOrError(repositorySelector: {
  repositoryName: "__repository__", repositoryLocationName: "pipeline_platform"}) {
  __typename ... on ResourceDetailsList { results { name resourceType configuredValues { key value }
    configFields { name defaultValueAsJson } } } } }"""
JOBS = """{ repositoriesOrError { ... on RepositoryConnection { nodes { pipelines { name } } } } }"""
JOB = """query Job($job: String!) { runConfigSchemaOrError(selector: {
  repositoryName: "__repository__", repositoryLocationName: "pipeline_platform", pipelineName: $job}) {
  __typename ... on RunConfigSchema { rootDefaultYaml allConfigTypes { key description } } }
  pipelineOrError(params: {
  repositoryName: "__repository__", repositoryLocationName: "pipeline_platform", pipelineName: $job}) {
  __typename ... on Pipeline { modes { name resources { name description configField { name } } } } } }"""
INSTANCE = """{ instance { info runQueuingSupported daemonHealth { allDaemonStatuses { daemonType lastHeartbeatErrors
  { message stack } } } }
  workspaceOrError { ... on Workspace { locationEntries { name displayMetadata { key value } } } } }"""
RUNS = """{ runsOrError(limit: 200) { ... on Runs { results {
  runId runConfigYaml tags { key value } status pipelineName } } } }"""
EVENTS = """query Events($run: ID!) { logsForRun(runId: $run) { ... on EventConnection { events {
  ... on MessageEvent { message eventType } } } } }"""


def secrets_of(state_dir: Path) -> dict[str, str]:
    """Every secret of the state folder by a name for it: the files of `secrets/` and the passwords of its URLs."""
    found = {path.name: path.read_text().strip() for path in (state_dir / "secrets").iterdir() if path.is_file()}
    for name, value in json.loads((state_dir / "connections.json").read_text()).items():
        if isinstance(value, str) and "://" in value and (password := urlsplit(value).password):
            found[f"the password of {name}"] = unquote(password)
    assert len(found) >= 4, found.keys()
    assert all(len(secret) >= 16 for secret in found.values())
    return found


def needles(state_dir: Path) -> dict[str, tuple[bytes, ...]]:
    """Each secret in the spellings that it could stand in."""
    return {
        name: tuple({secret.encode(), quote(secret, safe="").encode(), json.dumps(secret)[1:-1].encode()})
        for name, secret in secrets_of(state_dir).items()
    }


def pages(up: Up) -> Iterator[tuple[str, bytes]]:
    """What Dagster's UI shows and gives away, as (where, content)."""
    yield "the resources page", up.graphql_bytes(RESOURCES)
    yield "the instance page", up.graphql_bytes(INSTANCE)
    jobs = json.loads(up.graphql_bytes(JOBS))["data"]["repositoriesOrError"]["nodes"][0]["pipelines"]
    assert len(jobs) > 10
    for job in jobs:
        yield f"the launchpad of {job['name']}", up.graphql_bytes(JOB, job=job["name"])
    answer = up.graphql_bytes(RUNS)
    yield "the runs page", answer
    runs = json.loads(answer)["data"]["runsOrError"]["results"]
    assert runs
    first_of_each_job = {run["pipelineName"]: run["runId"] for run in runs}
    for job, run in first_of_each_job.items():
        yield f"the events of a run of {job}", up.graphql_bytes(EVENTS, run=run)
        yield f"the debug file of a run of {job}", _unzipped(up.dagster_get(f"/download_debug/{run}").content)
    for path in ("/", "/deployment/config", "/server_info"):
        yield path, up.dagster_get(path).content


def rows(database_url: str) -> Iterator[tuple[str, bytes]]:
    """Every value of every table of a database, compressed ones also as they were."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        tables = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        assert tables
        for schema, table in tables:
            cursor = connection.execute(
                sql.SQL("select * from {}.{} limit 200000").format(sql.Identifier(schema), sql.Identifier(table))
            )
            columns = [column.name for column in cursor.description or ()]
            for row in cursor:
                for column, value in zip(columns, row, strict=True):
                    yield f"{table}.{column}", _bytes(value)


def logs(state_dir: Path) -> Iterator[tuple[str, bytes]]:
    """What the services have written."""
    for path in (state_dir / "logs").iterdir():
        yield f"logs/{path.name}", path.read_bytes()
    yield "services.json", (state_dir / "services.json").read_bytes()
    for path in (state_dir / "dagster").rglob("*"):
        if path.is_file():
            yield f"DAGSTER_HOME/{path.name}", path.read_bytes()


def _bytes(value: Any) -> bytes:
    raw = bytes(value) if isinstance(value, (bytes, memoryview)) else str(value).encode()
    return raw + b" " + _unzipped(raw) if isinstance(value, (bytes, memoryview)) else raw


def _unzipped(raw: bytes) -> bytes:
    for wbits in (15, 31):
        try:
            return zlib.decompress(raw, wbits)
        except zlib.error:
            continue
    return raw
