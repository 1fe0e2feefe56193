"""Every mutation that Dagster has, with values that are enough for it to ask for the permission."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dagster_graphql.schema import create_schema
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLUnionType,
)

from pipeline_platform_tests.acceptance.stacks import Up
from pipeline_platform_tests.security.dagster_ui import SELECTOR

SCHEMA = create_schema().graphql_schema
assert SCHEMA.mutation_type is not None
FIELDS = SCHEMA.mutation_type.fields
OMITTED = "omitted"
HARMLESS = {"logTelemetry", "setNuxSeen"}  # change nothing of the platform

_REPOSITORY = 'repositorySelector: {repositoryName: "__repository__", repositoryLocationName: "pipeline_platform"}'
_THERE_IS = f"""{{ sensorsOrError({_REPOSITORY}) {{ ... on Sensors {{ results {{ name sensorState {{ id }} }} }} }}
  schedulesOrError({_REPOSITORY}) {{ ... on Schedules {{ results {{ name scheduleState {{ id }} }} }} }} }}"""
_SAYS_WHY = {"PythonError", "TerminateRunFailure"}
# Answers that hold one answer for each thing that was named.
_WITHIN = {
    "LaunchMultipleRunsResult": "launchMultipleRunsResult { __typename }",
    "TerminateRunsResult": "terminateRunResults { __typename ... on TerminateRunFailure { message } }",
}


def what_there_is(up: Up, run: str) -> dict[str, Any]:
    """Values by the name of a field: some mutations look for the thing before they ask who may touch it.

    `run` is the id of a run that has not ended.
    """
    found, backfill = up.graphql(_THERE_IS), up.backfills()[0]["id"]
    sensor, schedule = found["sensorsOrError"]["results"][0], found["schedulesOrError"]["results"][0]
    return {
        **dict.fromkeys(("runId", "parentRunId"), run),
        "runIds": [run],
        "backfillId": backfill,
        "reexecutePartitionBackfill.reexecutionParams": {"parentRunId": backfill, "strategy": "ALL_STEPS"},
        "launchPipelineReexecution.executionParams": OMITTED,  # one of the two, and the other is asked first
        "launchRunReexecution.executionParams": OMITTED,
        "sensorName": sensor["name"],
        "scheduleName": schedule["name"],
        "stopSensor.id": sensor["sensorState"]["id"],
        "stopRunningSchedule.id": schedule["scheduleState"]["id"],
        "selector": None,
        "repositoryName": SELECTOR["repositoryName"],
        "repositoryLocationName": SELECTOR["repositoryLocationName"],
        "pipelineName": SELECTOR["pipelineName"],
        "strategy": "ALL_STEPS",
        "timestamp": 1.0,
        "cursor": "x",
    }


def mutation(name: str, known: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """A mutation with values for what it has to have, as query and variables."""
    field = FIELDS[name]
    wanted = {each: argument.type for each, argument in field.args.items()}
    values = {each: known.get(f"{name}.{each}") or _value(each, kind, known) for each, kind in wanted.items()}
    given = {each: value for each, value in values.items() if value is not None and value != OMITTED}
    declared = ", ".join(f"${each}: {wanted[each]}" for each in given)
    passed = ", ".join(f"{each}: ${each}" for each in given)
    kind = getattr(field.type, "of_type", field.type)
    composite = isinstance(kind, GraphQLUnionType | GraphQLObjectType)
    members = {each.name for each in kind.types} if isinstance(kind, GraphQLUnionType) else {str(kind)}
    inner = " ".join(f"... on {each} {{ {_WITHIN[each]} }}" for each in members & set(_WITHIN))
    why = " ".join(f"... on {each} {{ message }}" for each in sorted(members & _SAYS_WHY))
    selection = f"{{ __typename {why} {inner} }}" if composite else ""
    head = f"mutation M({declared})" if declared else "mutation M"
    return f"{head} {{ {name}{f'({passed})' if passed else ''} {selection} }}", given


def _value(name: str, kind: GraphQLInputType, known: Mapping[str, Any]) -> Any:
    """A value of an input type; None of one that need not be there."""
    needed = isinstance(kind, GraphQLNonNull)
    inner = kind.of_type if isinstance(kind, GraphQLNonNull) else kind
    if known.get(name) is not None:
        return known[name]
    if isinstance(inner, GraphQLInputObjectType):
        members = {each: _value(each, member.type, known) for each, member in inner.fields.items()}
        return {each: value for each, value in members.items() if value is not None}
    if not needed:
        return None
    if isinstance(inner, GraphQLList):
        return [_value(f"{name}[]", GraphQLNonNull(getattr(inner.of_type, "of_type", inner.of_type)), known)]
    if isinstance(inner, GraphQLEnumType):
        return next(iter(inner.values))
    assert isinstance(inner, GraphQLScalarType)
    return {"Int": 1, "Float": 1.0, "Boolean": True}.get(inner.name, "x")
