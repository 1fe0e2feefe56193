"""Where in a YAML file something stands, and what no file of ours may hold: fields given twice, bottomless nesting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from pipeline_platform.errors import PermanentError


def line_of(node: yaml.Node, path: Sequence[str | int]) -> int:
    """The line of the deepest part of `path` that the file has.

    A part of a list is its number, as int or digits, or the text that it is.
    """
    line = int(node.start_mark.line) + 1
    for part in path:
        if isinstance(node, yaml.SequenceNode) and (item := _item(node.value, str(part))) is not None:
            node, line = item, int(item.start_mark.line) + 1
            continue
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((key, value) for key, value in pairs if key.value == part), None)
        if found is None:
            break
        line, node = int(found[0].start_mark.line) + 1, found[1]
    return line


def _item(items: Sequence[yaml.Node], part: str) -> yaml.Node | None:
    if part.isdigit() and int(part) < len(items):
        return items[int(part)]
    return next((item for item in items if item.value == part), None)


def refuse_oddities(node: Any, where: str, error: type[PermanentError], *, deepest: int, depth: int = 0) -> None:
    """Raises `error` for a field that is given twice, and for what is no tree of at most `deepest` levels."""
    if depth > deepest:
        raise error(f"{where}, line {node.start_mark.line + 1}: nested too deeply, or an alias of itself.")
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise error(f"{where}, line {line}: a field's name is plain text.")
            if key.value in seen:
                raise error(f"{where}, line {line}, field {key.value}: given twice.")
            seen.add(key.value)
            refuse_oddities(value, where, error, deepest=deepest, depth=depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            refuse_oddities(value, where, error, deepest=deepest, depth=depth + 1)
