"""What the lists over HTTP have in common: parameters that are all known, pages by cursor, refusals that say why."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

from fastapi import Path, Response
from pydantic import AfterValidator, BaseModel, Field

from pipeline_platform.core.entries import TaggedReceipt
from pipeline_platform.errors import PermanentError
from pipeline_platform.gateway.credentials import require_stream
from pipeline_platform.gateway.cursor import decode_place, encode_place, question_of
from pipeline_platform.gateway.parameters import WholeNumber
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform.queue.keys import Key

LAST_ID = 2**63 - 1
RowId = Annotated[WholeNumber, Path(ge=1, le=LAST_ID, description="Its number.")]


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character")
    return text


Word = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_without_nul)]


def _without_tag(text: str) -> str:
    try:
        return str(TaggedReceipt.parse(text).receipt)
    except PermanentError:
        return text  # which finds nothing


# Dead letters have receipts without the tags that producers get.
ReceiptWord = Annotated[Word, AfterValidator(_without_tag)]
Words = Annotated[list[Word], Field(max_length=100)]


class Question(BaseModel):
    """The parameters of a list. Others are refused before, lest a misspelt filter finds everything."""

    limit: WholeNumber = Field(100, ge=1, le=1000, description="Rows a page.")
    cursor: str | None = Field(None, description="`next_cursor` of the page before.")

    def place(self) -> int | None:
        """The id that the page lies below; None for the first page."""
        return decode_place(self.cursor, self._digest())

    def following(self, row_id: int | None) -> str | None:
        """The cursor of the page below this id, if there is one."""
        return encode_place(row_id, self._digest()) if row_id is not None else None

    def _digest(self) -> str:
        asked = self.model_dump_json(exclude={"limit", "cursor"})
        return question_of(type(self).__name__, {"asked": [asked]})


def own_streams(key: Key, asked: Sequence[str]) -> tuple[str, ...]:
    """The streams to look into, none meaning all: as asked, or all that the key is for. A 403 problem beyond these."""
    for stream in asked:
        require_stream(key, stream)
    if not key.streams:
        require_stream(key, None)  # none named means all, but not to a key that is for none
    return tuple(asked) or tuple(sorted(key.streams or ()))


@contextmanager
def refused_as(kind: str) -> Iterator[None]:
    """What the warehouse's functions will not do, as a problem of that kind; what PostgreSQL refused stays what it is.

    The latter has the driver's error as its cause.
    """
    try:
        yield
    except PermanentError as error:
        if error.__cause__ is not None:
            raise
        raise ProblemError(kind, str(error)) from None


def as_made(document: BaseModel) -> Response:
    """The document as it is; FastAPI would check all of it again."""
    return Response(document.model_dump_json(), media_type="application/json")


def unknown_row(what: str, row_id: int) -> ProblemError:
    """The 404 problem."""
    return ProblemError("unknown-row", f"There is no {what} {row_id}.")
