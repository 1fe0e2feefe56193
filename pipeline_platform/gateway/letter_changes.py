"""POST /v1/dead-letters/replay and /v1/dead-letters/discard: try them again or give them up; a dry run first."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline_platform.core.edits import Edit
from pipeline_platform.core.rejections import Reason
from pipeline_platform.errors import PermanentError
from pipeline_platform.gateway.access import EdgeOf, Note, scoped
from pipeline_platform.gateway.admission import actor_of
from pipeline_platform.gateway.bodies import SmallBodies
from pipeline_platform.gateway.credentials import AccessProblemError
from pipeline_platform.gateway.dead_letters import LetterState
from pipeline_platform.gateway.edge import Edge
from pipeline_platform.gateway.moments import Moment
from pipeline_platform.gateway.openapi import BODY_PROBLEMS, PROBLEMS
from pipeline_platform.gateway.problems import ProblemError
from pipeline_platform.gateway.questions import LAST_ID, ReceiptWord, Word, Words, own_streams, refused_as
from pipeline_platform.gateway.replays import ReplayDocument, replay_document
from pipeline_platform.queue.keys import Key
from pipeline_platform.warehouse.dead_letters import MOST_IDS, LetterFilter, count, list_letters, open_letters
from pipeline_platform.warehouse.replay_preview import Preview, preview
from pipeline_platform.warehouse.replays import Replay, begin, discard

router = APIRouter(prefix="/v1", tags=["dead letters"], responses=PROBLEMS, route_class=SmallBodies)
_EXAMPLES = 20  # of a preview, over all outcomes

Ids = Annotated[list[Annotated[int, Field(ge=1, le=LAST_ID, strict=True)]], Field(min_length=1, max_length=MOST_IDS)]


class LetterFilterDocument(BaseModel):
    """Which dead letters: those that match every part; at least one is needed. Only open ones are ever taken."""

    model_config = ConfigDict(extra="forbid")

    streams: Words = []
    reasons: list[Reason] = Field([], max_length=20)
    states: list[LetterState] = Field([], max_length=4, description='["open"] alone means all that are open.')
    fields: Words = Field([], description="The fields that are to blame.")
    receipt: ReceiptWord | None = None
    batch_id: int | None = Field(None, ge=1, le=LAST_ID, strict=True, description="The batch that refused them first.")
    since: Moment | None = Field(None, description="Last refused then or later: RFC 3339 with offset, or epoch ms.")
    until: Moment | None = Field(None, description="Last refused before.")
    text: Word | None = Field(None, description="Somewhere in payload or message, whatever the case.")

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not any(getattr(self, name) for name in type(self).model_fields):
            raise ValueError('An empty filter would take everything; say {"states": ["open"]} if that is meant')
        return self


class DiscardRequest(BaseModel):
    """Which dead letters to give up, and whether in earnest."""

    model_config = ConfigDict(extra="forbid")

    filter: LetterFilterDocument | None = Field(None, description="Either this or `ids`.")
    ids: Ids | None = Field(None, description="Their numbers; either this or `filter`.")
    note: str | None = Field(None, max_length=1000, description="Kept in the audit.")
    dry_run: bool | None = Field(
        None,
        strict=True,
        description="true: only say what would happen. Default: true where more than one letter matches.",
    )

    @model_validator(mode="after")
    def _either(self) -> Self:
        if (self.filter is None) == (self.ids is None):
            raise ValueError("Give either a filter or ids")
        return self

    def which(self) -> LetterFilter:
        """As the warehouse has it."""
        if self.filter is None:
            return LetterFilter(ids=tuple(self.ids or ()))
        return LetterFilter.from_document(self.filter.model_dump(mode="json"))


class EditDocument(BaseModel):
    """What to change in the payloads, in this order: fields are renamed, the patch is merged, fields are set."""

    model_config = ConfigDict(extra="forbid")

    rename: dict[str, str] | None = Field(None, description="Old name to new name.", examples=[{"val": "value"}])
    merge: dict[str, Any] | None = Field(None, description="A JSON merge patch (RFC 7396); null removes a field.")
    set: dict[str, str] | None = Field(
        None, description="Field to expression over the event's fields.", examples=[{"value": "float(value) / 100"}]
    )

    def edit(self) -> Edit:
        """As the core has it; a 422 problem saying what is wrong with it."""
        parts = self.model_dump(exclude_unset=True)
        try:
            return Edit.parse({name: part for name, part in parts.items() if part is not None})
        except PermanentError as error:
            raise ProblemError("bad-parameter", f"edit: {error}", parameter="edit") from None


class ReplayRequest(DiscardRequest):
    """Which dead letters to try again, with which changes, and whether in earnest."""

    edit: EditDocument | None = None


class ExampleDocument(BaseModel):
    """One letter of a dry run. Payloads are cut to their first 500 characters."""

    id: int
    stream: str
    before: str | None = Field(description="Null for keys without the scope `admin`, as is `after`.")
    after: str | None = Field(description="What the edit makes of it; null: nothing.")
    outcome: str = Field(description="pass, or the reason that it would be refused for.")
    field: str
    message: str


class PreviewDocument(BaseModel):
    """What a replay would do; `tried` = `would_pass` + `negative` + the sum of `would_fail`."""

    tried: int = Field(description="Letters that were tried, all of them or a sample.")
    sampled: bool
    would_pass: int
    negative: int = Field(description="Would be dropped, and counted, for a negative measure.")
    would_fail: dict[str, int] = Field(description="Would be refused again, by reason.")
    poison: int = Field(description="Not tried: what they do to a process only a run may find out.")
    examples: list[ExampleDocument]


class ChangeDocument(BaseModel):
    """What was done, or would be."""

    dry_run: bool
    matched: int = Field(description="Open letters that match; of a request in earnest, those that it took.")
    message: str
    preview: PreviewDocument | None = Field(description="Of a dry run of a replay.")
    replay: ReplayDocument | None = Field(description="The request in the audit; null for a dry run.")


@router.post(
    "/dead-letters/replay",
    summary="Try refused events again",
    responses=BODY_PROBLEMS
    | {202: {"model": ChangeDocument, "description": "It has begun; Location says how it goes."}},
)
def replay_letters(
    edge: EdgeOf,
    asked: ReplayRequest,
    key: Annotated[Key, Depends(scoped("operate", narrow=True))],
    note: Note,
    response: Response,
) -> ChangeDocument:
    """By Dagster runs, with the identity they came with: pressed twice or raced, a letter is taken once.

    200 for a dry run, and where nothing matched; 202 when it has begun.
    """
    edit = asked.edit.edit() if asked.edit is not None else None
    payloads = key.allows("admin")
    if not payloads:
        _refuse_probing(asked, key)
    which, dry = _decided(edge, asked, key, replay=True)
    if dry:
        found = preview(edge.engine, edge.specs, which, edit)
        if payloads:
            examples = len(found.examples[:_EXAMPLES])
            note("dead-letters-read", key, filter=which.document(), count=examples, dry_run=True)
        return _would(found, payloads=payloads)
    done = begin(edge.writer, which, edit, requested_by=actor_of(key), streams=edge.specs.keys(), note=asked.note)
    note("replay", key, replay=done.id, filter=which.document(), matched=done.matched, edited=edit is not None)
    if done.state == "running":
        response.status_code = 202
        response.headers["Location"] = f"/v1/replays/{done.id}"
    return _did(done, f"Replay {done.id} tries {done.matched} dead letters again.")


@router.post("/dead-letters/discard", summary="Give refused events up", responses=BODY_PROBLEMS)
def discard_letters(
    edge: EdgeOf, asked: DiscardRequest, key: Annotated[Key, Depends(scoped("admin"))], note: Note
) -> ChangeDocument:
    """They can be looked at until their retention ends, and are not replayed any more."""
    which, dry = _decided(edge, asked, key, replay=False)
    if dry:
        matched = count(edge.engine, replace(which, states=("open",)))
        message = f"{matched} open dead letters would be discarded. Nothing was changed: this was a dry run."
        return ChangeDocument(dry_run=True, matched=matched, message=message, preview=None, replay=None)
    done = discard(edge.writer, which, requested_by=actor_of(key), note=asked.note)
    note("discard", key, replay=done.id, filter=which.document(), matched=done.matched)
    return _did(done, f"{done.matched} dead letters are discarded, by request {done.id}.")


def _refuse_probing(asked: DiscardRequest, key: Key) -> None:
    """Who may not read payloads may not ask either what is in them, and be answered by what matches."""
    if asked.filter is not None and asked.filter.text is not None:
        detail = "To look for a text in payloads needs an API key with the scope admin."
        raise AccessProblemError("forbidden", detail, reason="text in payloads", key=key)


def _decided(edge: Edge, asked: DiscardRequest, key: Key, *, replay: bool) -> tuple[LetterFilter, bool]:
    """Which letters, and whether it is a dry run: asked for or, unless said otherwise, when more than one matches.

    A repeat of an event_id that the filter does not name is not taken by a replay: the dry run says so.
    """
    which = asked.which()
    which = replace(which, streams=own_streams(key, which.streams))
    edge.refuse_strangers(which.streams)
    with refused_as("bad-parameter"):
        open_letters(which)
    if asked.dry_run is not None:
        return which, asked.dry_run
    found = list_letters(edge.engine, replace(which, states=("open",)), limit=2).letters
    if len(found) != 1:
        return which, bool(found)
    named = which.reasons or which.ids
    if replay and not named and found[0].reason == Reason.DUPLICATE_EVENT_ID:
        return which, True
    return LetterFilter(ids=(found[0].id,), streams=which.streams), False  # that one, whatever comes to match meanwhile


def _would(found: Preview, *, payloads: bool) -> ChangeDocument:
    examples = [ExampleDocument.model_validate(each, from_attributes=True) for each in found.examples[:_EXAMPLES]]
    if not payloads:
        examples = [each.model_copy(update={"before": None, "after": None}) for each in examples]
    sample = f" of a sample of {found.tried}" if found.sampled else ""
    message = f"{found.matched} open dead letters match; {found.would_pass}{sample} would pass now. "
    return ChangeDocument(
        dry_run=True,
        matched=found.matched,
        message=message + "Nothing was changed: this was a dry run.",
        preview=PreviewDocument(
            tried=found.tried,
            sampled=found.sampled,
            would_pass=found.would_pass,
            negative=found.negative,
            would_fail=dict(found.would_fail),
            poison=found.poison,
            examples=examples,
        ),
        replay=None,
    )


def _did(done: Replay, message: str) -> ChangeDocument:
    if not done.matched:
        message = "No open dead letter matches; nothing was changed."
    return ChangeDocument(
        dry_run=False, matched=done.matched, message=message, preview=None, replay=replay_document(done)
    )
