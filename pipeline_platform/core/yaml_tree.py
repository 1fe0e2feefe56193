"""YAML files that people write: one mapping, read with the line of everything in it; an oddity is one sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

from pipeline_platform.core.mistakes import in_words
from pipeline_platform.errors import PermanentError

LARGEST = 2**18  # bytes of a file
MOST_VALUES = 20_000  # of a file, those that aliases repeat too
DEEPEST = 20
_LONGEST_VALUE = 100  # characters of a number, a date or whatever else is not text
_PLAIN_TEXT = "tag:yaml.org,2002:str"
# What a constructor of PyYAML raises for a value that only looks like a number or a date.
_NO_SUCH_VALUE = (ValueError, LookupError, ArithmeticError, AttributeError, TypeError)
_MEMBER = re.compile(r"(literal|tuple|list)\[")
_WORDS = (
    ("but found another document", "it holds several documents; a file is one"),
    (r"found character '\t' that cannot start any token", "it is indented with a tab; use spaces"),
    ("special characters are not allowed", "it holds a character that no text has, such as NUL; is it binary?"),
)


@dataclass(frozen=True, slots=True)
class YamlFile:
    """What a file says: `data`, and where in it everything stands."""

    where: str
    data: dict[Any, Any]
    tree: yaml.Node

    def place(self, path: Sequence[str | int]) -> str:
        """Where in the file a field stands; items of a list are counted from 1."""
        line, names = _found(self.tree, path)
        return f"{self.where}, line {line}, field {'.'.join(names) or '(whole file)'}"

    def at(self, path: Sequence[str | int], message: str) -> str:
        """A mistake's sentence, with its place in the file."""
        return f"{self.place(path)}: {_short(message, 500)}."

    def explain(self, error: ValidationError, see: str) -> str:
        """A sentence a mistake that pydantic has found; the page `see` describes the fields."""
        return "\n".join(
            self.at(_path(each), in_words(each, see)) for each in error.errors(include_url=False, include_input=False)
        )


def _path(problem: ErrorDetails) -> tuple[str | int, ...]:
    """Where pydantic has found it. A union names its members there; a file's author knows fields only."""
    found = problem.get("ctx", {}).get("path", problem["loc"])
    return tuple(part for part in found if not isinstance(part, str) or not _MEMBER.match(part))


def read_text(path: Path, fault: type[PermanentError], hint: str = "") -> str:
    """The text of a file; `hint` ends what is said when it cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:
        raise fault(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.{hint}") from None
    if len(raw) > LARGEST:
        raise fault(f"{path}: cannot be read: it is larger than {LARGEST // 2**10} KiB.{hint}")
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise fault(f"{path}: cannot be read: it is UTF-16; save it as UTF-8.{hint}")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise fault(f"{path}, line {line}: cannot be read: it is not UTF-8; save it as UTF-8.{hint}") from None


def parse_mapping(text: str, where: str, fault: type[PermanentError], shape: str) -> YamlFile:
    """The one mapping of a YAML text; `shape` says what it should be. Raises `fault`, naming the line."""
    try:
        loader = _Loader(text)
        tree = cast(Any, loader.get_single_node())  # types-PyYAML knows it by no type
        _refuse_oddities(tree, where, fault, [MOST_VALUES])
        data = loader.construct_document(tree) if tree is not None else None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise fault(f"{where}, line {line}: not YAML: {_in_words(str(error.problem))}.") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise fault(f"{where}, line {line}: not YAML: {_in_words(error.reason)}.") from None
    if not isinstance(data, dict):
        raise fault(f"{where}, line 1: {shape}.")
    return YamlFile(where, data, tree)


def _in_words(problem: str) -> str:
    """PyYAML's words, or better ones."""
    return next((words for said, words in _WORDS if said in problem), _short(problem, 160))


def _short(words: str, most: int) -> str:
    """What is said of a name or a value out of the file, which may be as long as the file."""
    return words if len(words) <= most else f"{words[: most - 3]}..."


class _Loader(yaml.SafeLoader):
    """Reads values that JSON could have, and dates; stops as soon as there are too many or they are too deep."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._values = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        self._depth += 1
        self._values += 1
        if self._depth > DEEPEST:
            raise ComposerError(None, None, f"nested too deeply, more than {DEEPEST} levels", mark)
        if self._values > MOST_VALUES:
            raise ComposerError(None, None, f"more than {MOST_VALUES} values", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        known = node.tag == _PLAIN_TEXT or not isinstance(node, yaml.ScalarNode)
        try:
            if not known and len(node.value) > _LONGEST_VALUE:
                raise ValueError
            return super().construct_object(node, deep=deep)
        except _NO_SUCH_VALUE:
            words = "a value that looks like a number, a date or the like and is none; put text between quotes"
            raise ConstructorError(None, None, words, node.start_mark) from None


def _found(node: yaml.Node, path: Sequence[str | int]) -> tuple[int, list[str]]:
    """The line of the deepest part of `path` that the file has, and what its author calls the parts.

    A part of a list is its number, as int or digits, or the text that it is.
    """
    line, names = int(node.start_mark.line) + 1, []
    there: yaml.Node | None = node
    for part in path:
        names.append(str(part)[:80])
        if isinstance(there, yaml.SequenceNode) and (item := _item(there.value, str(part))) is not None:
            if isinstance(part, int):
                names[-1] = str(part + 1)
            there, line = item, int(item.start_mark.line) + 1
            continue
        pairs = there.value if isinstance(there, yaml.MappingNode) else []
        key, there = next(((key, value) for key, value in pairs if key.value == str(part)), (None, None))
        line = int(key.start_mark.line) + 1 if key is not None else line
    return line, names


def _item(items: Sequence[yaml.Node], part: str) -> yaml.Node | None:
    if re.fullmatch(r"[0-9]{1,9}", part) and int(part) < len(items):
        return items[int(part)]
    return next((item for item in items if item.value == part), None)


def _refuse_oddities(node: Any, where: str, fault: type[PermanentError], left: list[int], depth: int = 0) -> None:
    """Raises `fault` for a field that is given twice, and for aliases that make much, or no end, of little."""
    left[0] -= 1
    if depth > DEEPEST or left[0] < 0:
        raise fault(
            f"{where}, line {node.start_mark.line + 1}: nested too deeply, or an alias of itself or of too much."
        )
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise fault(f"{where}, line {line}: a field's name is plain text.")
            if key.value in seen:
                raise fault(f"{where}, line {line}, field {key.value[:80]}: given twice.")
            seen.add(key.value)
            _refuse_oddities(value, where, fault, left, depth + 1)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            _refuse_oddities(value, where, fault, left, depth + 1)
