"""Edits of dead letters before they are replayed: renamed fields, a JSON merge patch, small expressions."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from pipeline_platform.core.numbers import as_json, float_in, whole_number_in
from pipeline_platform.errors import EditError, PermanentError

MOST_BYTES = 16 * 2**10  # an edit as JSON
MOST_CHARACTERS = 500  # an expression
MOST_NODES = 100
MOST_DEPTH = 20
LONGEST_TEXT = 64 * 2**10  # a text that an expression makes, and a payload that an edit makes

_NUMBER = (int, float)
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
}
_FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[type, ...], int]] = {
    # name: what it does, what its first argument may be, the most arguments
    "abs": (abs, _NUMBER, 1),
    "round": (round, _NUMBER, 2),
    "lower": (str.lower, (str,), 1),
    "upper": (str.upper, (str,), 1),
    "strip": (str.strip, (str,), 1),
    "float": (lambda value: float_in(value) if isinstance(value, str) else float(value), (*_NUMBER, str), 1),
    "int": (lambda value: whole_number_in(value) if isinstance(value, str) else int(value), (*_NUMBER, str), 1),
    "str": (str, (*_NUMBER, str), 1),
}


@dataclass(frozen=True)
class Edit:
    """What is changed in an event, in this order: fields are renamed, the merge patch is applied, fields are set.

    `merge` is a JSON merge patch (RFC 7396): null removes a field. `set` gives a field the value of an expression over
    the event's fields as they are then: numbers, texts, + - * / %, and abs round lower upper strip float int str.
    """

    merge: Mapping[str, object] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    set: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, document: object) -> Self:
        """The edit in a JSON document. Raises PermanentError saying what is wrong with it."""
        form = '{"rename": {"val": "value"}, "merge": {"source": "a"}, "set": {"value": "value * 100"}}'
        if not isinstance(document, Mapping) or not document:
            raise PermanentError(f"An edit is an object such as {form}.")
        if unknown := sorted(set(map(str, document)) - {"merge", "rename", "set"}):
            raise PermanentError(f"An edit has no {unknown[0]!r}; it is an object such as {form}.")
        merge, rename, expressions = document.get("merge"), document.get("rename"), document.get("set")
        if merge is not None and not isinstance(merge, Mapping):
            raise PermanentError("merge is a JSON object: the fields to replace; null removes one.")
        for name, given in (("rename", rename), ("set", expressions)):
            if given is not None and not _is_texts(given):
                raise PermanentError(f"{name} is an object whose values are texts; an edit is such as {form}.")
        renames = dict(rename or {})
        if len(set(renames.values())) < len(renames):
            raise PermanentError("rename gives two fields the same name.")
        edit = cls(dict(merge) if merge is not None else None, renames, dict(expressions or {}))
        try:
            size = len(orjson.dumps(edit.document()))
        except TypeError:
            raise PermanentError("merge holds a value that JSON has not.") from None
        if size > MOST_BYTES:
            raise PermanentError(f"An edit is at most {MOST_BYTES} bytes of JSON.")
        for name, expression in edit.set.items():
            _parse(name, expression)
        return edit

    def document(self) -> dict[str, object]:
        """The parts that are given, as JSON; what `parse` reads."""
        parts = {"merge": self.merge, "rename": dict(self.rename) or None, "set": dict(self.set) or None}
        return {name: value for name, value in parts.items() if value is not None}

    def apply(self, payload: bytes) -> bytes:
        """The event with the edit. Raises EditError where it cannot be: no JSON object, a missing field, a bad type."""
        return Editor(self).apply(payload)


class Editor:
    """An edit made ready to be applied to many events."""

    def __init__(self, edit: Edit) -> None:
        self._edit = edit
        self._expressions = {name: _parse(name, text) for name, text in edit.set.items()}

    def apply(self, payload: bytes) -> bytes:
        """As `Edit.apply`."""
        try:
            event = orjson.loads(payload)
        except orjson.JSONDecodeError:
            raise EditError("the payload is not JSON") from None
        if not isinstance(event, dict):
            raise EditError("the payload is not a JSON object")
        event = _renamed(event, self._edit.rename)
        if self._edit.merge is not None:
            event = _merged(event, self._edit.merge)
        # All from the event as it is now: the order of the expressions does not matter.
        event |= {name: _value(name, tree, event) for name, tree in self._expressions.items()}
        try:
            edited = orjson.dumps(event)
        except TypeError:
            raise EditError("a value is larger than a 64-bit whole number") from None
        if len(edited) > max(LONGEST_TEXT, len(payload)):
            raise EditError(f"the event would be longer than {LONGEST_TEXT} bytes")
        return edited


def _is_texts(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(text, str) for pair in value.items() for text in pair)


def _renamed(event: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The event with other names; a field that it has not is passed over. All at once, so that two can be swapped."""
    taken = {new for old, new in names.items() if old in event}
    if both := [new for new in taken if new in event and new not in names]:
        raise EditError(f"the event has a field {both[0]!r} already")
    return {names.get(name, name): value for name, value in event.items()}


def _merged(target: Any, patch: Any) -> Any:
    """RFC 7396. A patch is as deep as the JSON of an edit may be."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merged(merged.get(name), value)
    return merged


def _parse(name: str, text: str) -> ast.expr:
    """The expression, with nothing in it but what an expression may have."""
    if len(text) > MOST_CHARACTERS:
        raise PermanentError(f"The expression of {name} is longer than {MOST_CHARACTERS} characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise PermanentError(f"The expression of {name} is not one: {text!r}.") from None
    nodes = list(ast.walk(tree))
    if len(nodes) > MOST_NODES:
        raise PermanentError(f"The expression of {name} is too long.")
    for node in nodes:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            written = ast.get_source_segment(text.strip(), node) or ""
            if as_json(written) is None:
                raise PermanentError(f"In the expression of {name}, {written!r} is not a number.")
    _check(name, tree, 0)
    return tree


def _check(name: str, node: ast.expr, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise PermanentError(f"The expression of {name} is nested too deeply.")
    match node:
        case ast.Constant(value=value) if type(value) in (int, float, str):
            parts: list[ast.expr] = []
        case ast.Name():
            parts = []
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            parts = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            parts = [left, right]
        case ast.Call(func=ast.Name(id=function), args=arguments, keywords=[]) if function in _FUNCTIONS:
            if not 1 <= len(arguments) <= _FUNCTIONS[function][2]:
                raise PermanentError(f"In the expression of {name}, {function} has too many arguments or none.")
            parts = list(arguments)
        case _:
            raise PermanentError(
                f"The expression of {name} may have fields, numbers, texts, + - * / % and {' '.join(_FUNCTIONS)}, "
                f"but not {ast.unparse(node)[:80]!r}."
            )
    for part in parts:
        _check(name, part, depth + 1)


def _value(name: str, tree: ast.expr, event: Mapping[str, Any]) -> Any:
    try:
        value = _evaluate(tree, event)
    except (ArithmeticError, ValueError, TypeError) as error:
        raise EditError(f"{name} cannot be computed: {error}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise EditError(f"{name} would not be a finite number")
    return value


def _evaluate(node: ast.expr, event: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=field_name):
            if event.get(field_name) is None:
                raise EditError(f"the event has no field {field_name!r}")
            return event[field_name]
        case ast.UnaryOp(op=op, operand=operand):
            number = _number(_evaluate(operand, event))
            return -number if isinstance(op, ast.USub) else number
        case ast.BinOp(left=left, op=op, right=right):
            return _computed(type(op), _evaluate(left, event), _evaluate(right, event))
        case ast.Call(func=ast.Name(id=function), args=arguments):
            return _called(function, [_evaluate(argument, event) for argument in arguments])
    raise EditError("the expression cannot be computed")  # `_parse` lets nothing else through


def _computed(op: type[ast.operator], left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str) and op is ast.Add:
        if len(left) + len(right) > LONGEST_TEXT:
            raise EditError(f"a text would be longer than {LONGEST_TEXT} characters")
        return left + right
    return _ARITHMETIC[op](_number(left), _number(right))


def _called(function: str, arguments: list[Any]) -> Any:
    what, allowed, _ = _FUNCTIONS[function]
    if isinstance(arguments[0], bool) or not isinstance(arguments[0], allowed):
        raise EditError(f"{function} cannot take {_shown(arguments[0])}")
    if any(isinstance(more, bool) or not isinstance(more, int) or abs(more) > 400 for more in arguments[1:]):
        raise EditError("round takes whole digits")
    return what(*arguments)


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, _NUMBER):
        raise EditError(f"{_shown(value)} is not a number")
    return value


def _shown(value: Any) -> str:
    return repr(value)[:80]
