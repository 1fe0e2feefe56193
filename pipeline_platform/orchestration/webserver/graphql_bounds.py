"""What a GraphQL text would cost, before it is executed: queries are otherwise free of charge."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    parse,
)

TEXT_BYTES = 64 * 2**10
DEPTH = 15  # fields within fields: GraphiQL's question for the schema has them all, Dagster's UI at most 10
FIELDS = 5_000  # with every fragment written out; the largest query of the UI has 795


class BoundError(Exception):
    """The text is too long, too deep or too wide; the message says which."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A text that is within the bounds: the root fields of its mutations."""

    mutations: tuple[str, ...]


@lru_cache(256)  # the UI sends few different texts
def examine(text: str) -> Shape:
    """The shape of a GraphQL text. BoundError beyond a bound; GraphQLError when it is no GraphQL."""
    if len(text) > TEXT_BYTES:
        raise BoundError(f"A query has at most {TEXT_BYTES // 1024} KiB of text; put values into variables.")
    try:
        document = parse(text)
        depth, fields = _Measure(document).document()
    except RecursionError:
        raise BoundError(f"A query is at most {DEPTH} fields deep.") from None
    if depth > DEPTH:
        raise BoundError(f"A query is at most {DEPTH} fields deep; this one has {depth}.")
    if fields > FIELDS:
        raise BoundError(f"A query has at most {FIELDS:,} fields; this one has more.")
    return Shape(_mutations(document))


class _Measure:
    """Depth and number of fields, each fragment measured once: written out they could be exponentially many."""

    def __init__(self, document: DocumentNode) -> None:
        self._definitions = document.definitions
        self._fragments = {
            each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
        }
        self._known: dict[str, tuple[int, int]] = {}

    def document(self) -> tuple[int, int]:
        sets = [each.selection_set for each in self._definitions if isinstance(each, OperationDefinitionNode)]
        sizes = [self._set(each, ()) for each in sets]
        return max((depth for depth, _ in sizes), default=0), sum(fields for _, fields in sizes)

    def _set(self, selections: SelectionSetNode | None, within: tuple[str, ...]) -> tuple[int, int]:
        deepest = fields = 0
        for each in selections.selections if selections else ():
            if isinstance(each, FragmentSpreadNode):
                depth, count = self._fragment(each.name.value, within)
            else:
                depth, count = self._set(getattr(each, "selection_set", None), within)
                if isinstance(each, FieldNode):
                    depth, count = depth + 1, count + 1
            deepest, fields = max(deepest, depth), fields + count
        return deepest, fields

    def _fragment(self, name: str, within: tuple[str, ...]) -> tuple[int, int]:
        if name in within:
            raise BoundError(f"The fragment {name} contains itself.")
        if name not in self._known:
            found = self._fragments.get(name)
            self._known[name] = self._set(found.selection_set, (*within, name)) if found else (0, 0)
        return self._known[name]


def _mutations(document: DocumentNode) -> tuple[str, ...]:
    operations = [
        each
        for each in document.definitions
        if isinstance(each, OperationDefinitionNode) and each.operation is OperationType.MUTATION
    ]
    names = [
        getattr(getattr(field, "name", None), "value", "...")
        for op in operations
        for field in op.selection_set.selections
    ]
    return tuple(names)
