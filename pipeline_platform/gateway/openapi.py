"""What OpenAPI has to know beyond FastAPI's own findings: the ingest endpoint, the streams' events, the problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field

from pipeline_platform.core.event_ids import MAX_LENGTH
from pipeline_platform.core.streams import StreamSpec

WHERE = "where."  # before a dimension's name, which may be that of any other parameter
MOST_VALUES = 100
DESCRIPTION = """\
POST events; each accepted request is durable before it is answered, gets a receipt, and affects the warehouse exactly
once. Errors are problem documents (RFC 9457). Everything but /healthz, /readyz, /metrics and these pages needs an API
key, as `Authorization: Bearer <key>` or `X-API-Key: <key>`. HEAD is there wherever GET is, and asks for the same key;
OPTIONS is there everywhere, needs no key, and answers with a path's methods in `Allow`.
"""


class Problem(BaseModel):
    """An RFC 9457 problem document."""

    type: str
    title: str
    status: int
    detail: str
    instance: str
    errors: list[dict[str, Any]] | None = Field(None, description="One entry a mistake, where there are several.")
    line: int | None = Field(None, description="The line of an NDJSON body, from 1.")
    index: int | None = Field(None, description="The event within the request, from 0.")
    parameter: str | None = None


_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_MEANING = {
    400: "The request cannot be read.",
    401: "An API key is needed.",
    403: "The key lacks the scope.",
    404: "There is no such thing.",
    422: "A parameter is not usable.",
    429: "Too many requests; see Retry-After.",
    503: "Away or full for now; see Retry-After.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": _CONTENT} for status, text in _MEANING.items()
}
# What a request with a body may be answered besides.
BODY_PROBLEMS: dict[int | str, dict[str, Any]] = {
    408: {"description": "The body did not arrive in time.", "content": _CONTENT},
    413: {"description": "The body is too large.", "content": _CONTENT},
    415: {"description": "The body is not said to be JSON.", "content": _CONTENT},
}
NOTHING_TO_REPLAY: dict[int | str, dict[str, Any]] = {
    409: {"description": "There is nothing to replay.", "content": _CONTENT}
}
_INGEST_ONLY = {
    408: "The body did not arrive in time.",
    409: "The Idempotency-Key was used for another body.",
    413: "Too many bytes or events, or an event that is too long.",
    415: "The content type or encoding is not supported.",
}


def describe(document: dict[str, Any], specs: Mapping[str, StreamSpec], path: str) -> dict[str, Any]:
    """FastAPI's document with the ingest endpoint at `path` and a schema for each stream's events."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = Problem.model_json_schema()
    names = {name: f"{name}.event" for name in sorted(specs)}  # as no model of the API is called
    for name, schema in names.items():
        schemas[schema] = event_schema(specs[name])
    schemas["Accepted"] = {
        "type": "object",
        "required": ["receipt", "stream", "accepted", "links"],
        "properties": {
            "receipt": {"type": "string", "examples": ["telemetry.1763712000000-0"]},
            "stream": {"type": "string"},
            "accepted": {"type": "integer", "description": "Events in the request."},
            "links": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    }
    aggregates = document["paths"][f"{path.removesuffix('/events')}/aggregates"]["get"]
    aggregates["parameters"] += _filters(specs)
    document["paths"] = {path: {"post": _operation(specs, names)}, **document["paths"]}
    return document


def event_schema(spec: StreamSpec) -> dict[str, Any]:
    """The JSON schema of one event of the stream."""
    properties: dict[str, Any] = {
        "ts": {
            "description": "RFC 3339 with offset, or epoch milliseconds. Default: when the request was received.",
            "oneOf": [{"type": "string", "format": "date-time"}, {"type": "integer"}],
        },
        "event_id": {"type": "string"},
    }
    if spec.unique_event_id:
        properties["event_id"] |= {"minLength": 1, "maxLength": MAX_LENGTH, "description": "Repeats of it are dropped."}
    for name, dimension in spec.dimensions.items():
        properties[name] = {"type": "string", "maxLength": dimension.max_length, "description": dimension.description}
    for name, measure in spec.measures.items():
        properties[name] = {"type": "number", "description": measure.description}
    needed = [name for name, dimension in spec.dimensions.items() if dimension.default is None]
    needed += [name for name, measure in spec.measures.items() if measure.required]
    needed += ["event_id"] if spec.unique_event_id else []
    return {
        "type": "object",
        "title": spec.name,
        "description": spec.description,
        "required": needed,
        "properties": properties,
        "additionalProperties": spec.policies.unknown_fields == "ignore",
    }


def _operation(specs: Mapping[str, StreamSpec], names: Mapping[str, str]) -> dict[str, Any]:
    events = [{"$ref": f"#/components/schemas/{schema}"} for schema in names.values()]
    responses: dict[str, Any] = {
        "202": {
            "description": "Durable. `Idempotency-Replayed: true` says that it was so before.",
            "headers": {
                name: {"schema": {"type": kind}}
                for name, kind in (
                    ("Location", "string"),
                    ("RateLimit-Limit", "integer"),
                    ("RateLimit-Remaining", "integer"),
                    ("RateLimit-Reset", "integer"),
                )
            },
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Accepted"}}},
        },
        "200": {
            "description": "With `wait`: in the warehouse, with its outcome.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ReceiptDocument"}}},
        },
    }
    for status, text in sorted((_MEANING | _INGEST_ONLY).items()):
        responses[str(status)] = {"description": text, "content": _CONTENT}
    return {
        "tags": ["ingest"],
        "operationId": "post_events",
        "summary": "Accept events durably",
        "description": "One JSON object, an array of objects, or one object a line (NDJSON), also compressed with "
        "gzip or zstd. Needs a key with the scope `ingest`. Events that break the stream's contract are accepted and "
        "end as dead letters, unless `strict=true`.",
        "security": [{"bearer": []}, {"apiKey": []}],
        "parameters": [
            _parameter("stream", "path", {"type": "string", "enum": sorted(specs)}, "The declared stream."),
            _parameter("strict", "query", {"type": "boolean"}, "Check the contract at once; all or nothing."),
            _parameter("wait", "query", {"type": "number", "minimum": 0}, "Seconds to wait for the outcome."),
            _parameter(
                "Idempotency-Key",
                "header",
                {"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[ -~]+$"},
                "Repeat a request with the same key and body, and it counts once.",
            ),
            _parameter(
                "Content-Encoding", "header", {"type": "string", "enum": ["identity", "gzip", "zstd"]}, "Compression."
            ),
        ],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"anyOf": [*events, {"type": "array", "minItems": 1, "items": {"anyOf": events}}]}
                },
                "application/x-ndjson": {"schema": {"type": "string"}},
            },
        },
        "responses": responses,
    }


def _filters(specs: Mapping[str, StreamSpec]) -> list[dict[str, Any]]:
    """A parameter for every dimension of any stream."""
    streams: dict[str, list[str]] = {}
    for stream, spec in sorted(specs.items()):
        for dimension in spec.dimensions:
            streams.setdefault(dimension, []).append(stream)
    many = {"type": "array", "maxItems": MOST_VALUES, "items": {"type": "string"}}
    return [
        _parameter(WHERE + dimension, "query", many, f"Only these values; of {', '.join(having)}.")
        for dimension, having in sorted(streams.items())
    ]


def _parameter(name: str, where: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    required = where == "path"
    return {"name": name, "in": where, "required": required, "schema": schema, "description": description}
