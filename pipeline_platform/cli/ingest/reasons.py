"""Why a row is refused, as a clause that goes on from the name of its field."""

from __future__ import annotations


def clause(field: str, message: str) -> str:
    """Such as `metric is missing`, `the stream declares no field 'comment'`, `value has to be a number`."""
    if not field:
        return message
    if message.startswith("the field "):
        return f"{field} {message.removeprefix('the field ')}"
    if message.endswith(" no such field"):
        return f"{message.removesuffix(' such field')} field {field!r}"
    return message if message.startswith(("a ", "an ", "the ")) else f"{field} {message}"


def because(field: str, message: str) -> str:
    """`because` and the clause; what a reader of files says is no clause, and is quoted."""
    if field or message.startswith("the line "):
        return f"because {clause(field, message)}"
    return f"because of {message!r}"
