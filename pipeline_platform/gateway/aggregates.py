"""GET /v1/streams/{stream}/aggregates: windows of a stream as JSON, CSV or Arrow, in pages."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel

from pipeline_platform.core.streams import StreamSpec
from pipeline_platform.core.windows import to_datetime
from pipeline_platform.gateway.access import EdgeOf, scoped
from pipeline_platform.gateway.cursor import Cursor, decode_cursor, encode_cursor, question_of
from pipeline_platform.gateway.moments import parse_moment
from pipeline_platform.gateway.openapi import MOST_VALUES, PROBLEMS, WHERE
from pipeline_platform.gateway.parameters import Truth, WholeNumber, bad_parameter, parameters_of
from pipeline_platform.gateway.tables import ARROW, as_arrow, as_csv, as_json
from pipeline_platform.warehouse.queries import AggregateQuery, read_aggregates

_READ = scoped("read", rows_a_token=1000, own_query=True)
router = APIRouter(prefix="/v1", tags=["aggregates"], dependencies=[Depends(_READ)], responses=PROBLEMS)

_OWN = ("window", "from", "to", "format", "spreadsheet", "limit", "cursor")


class AggregateDocument(BaseModel):
    """A page. Rows hold window_start, the dimensions, events, and count, sum, min, max, avg, var, first and last of
    every measure."""

    data: list[dict[str, Any]]
    next_cursor: str | None


@router.get(
    "/streams/{stream}/aggregates",
    summary="Aggregates of a stream",
    response_model=AggregateDocument,
    responses={200: {"content": {"text/csv": {}, ARROW: {}}}},
)
def read_stream_aggregates(
    request: Request,
    edge: EdgeOf,
    stream: str,
    window: Annotated[Literal["1m"], Query(description="The width of the windows.")] = "1m",
    start: Annotated[
        str | None,
        Query(alias="from", description="RFC 3339 with offset, or epoch milliseconds; included. Default: `to` - 1 h."),
    ] = None,
    end: Annotated[str | None, Query(alias="to", description="Likewise; not included. Default: now.")] = None,
    form: Annotated[Literal["json", "csv", "arrow"], Query(alias="format")] = "json",
    spreadsheet: Annotated[
        Truth, Query(description="In CSV, put an apostrophe before texts that a spreadsheet would take for formulas.")
    ] = False,
    limit: Annotated[WholeNumber, Query(ge=1, le=10_000, description="Rows a page.")] = 1000,
    cursor: Annotated[str | None, Query(description="`next_cursor` (or X-Next-Cursor) of the page before.")] = None,
) -> Response:
    """Ordered by window_start and dimensions. `where.` and a dimension's name is a parameter too, once or several
    times: `?where.source=a&where.source=b`. CSV and Arrow carry the next cursor in X-Next-Cursor and Link."""
    del window  # the only one so far
    spec = edge.spec(stream)
    filters = _filters(request, spec)
    question = question_of(stream, filters)
    here = decode_cursor(cursor, question, len(spec.dimensions)) if cursor is not None else None
    low, high = _range(start, end, here)
    asked = AggregateQuery(low, high, filters, limit, here.after if here else None)
    with edge.heavy.place():
        page = read_aggregates(edge.engine, spec, asked)
        following = encode_cursor(Cursor(low, high, page.next), question) if page.next else None
        headers = {}
        if following:
            url = request.url.include_query_params(cursor=following)
            headers = {"X-Next-Cursor": following, "Link": f'<{url.path}?{url.query}>; rel="next"'}
        if form == "csv":
            # As a download: a browser that opens it by itself may hand it to a spreadsheet.
            headers["Content-Disposition"] = f'attachment; filename="{stream}.csv"'
            body = b"".join(as_csv(page, spreadsheet=spreadsheet))
            return Response(body, headers=headers, media_type="text/csv; charset=utf-8")
        if form == "arrow":
            return Response(as_arrow(page, spec), headers=headers, media_type=ARROW)
        return Response(as_json(page, following), headers=headers, media_type="application/json")


def _filters(request: Request, spec: StreamSpec) -> dict[str, list[str]]:
    filters: dict[str, list[str]] = {}
    for name, value in parameters_of(request.scope["query_string"], _OWN, [WHERE + each for each in spec.dimensions]):
        if name not in _OWN:
            filters.setdefault(name.removeprefix(WHERE), []).append(value)
    for dimension, values in filters.items():
        name = WHERE + dimension
        if len(values) > MOST_VALUES:
            raise bad_parameter(name, f"{name} may be given at most {MOST_VALUES} times.")
        if any("\0" in value for value in values):
            raise bad_parameter(name, f"{name} holds a NUL character.")
    return filters


def _range(start: str | None, end: str | None, cursor: Cursor | None) -> tuple[datetime, datetime]:
    high = _moment("to", end) if end is not None else cursor.end if cursor else datetime.now(UTC)
    if start is not None:
        low = _moment("from", start)
    elif cursor:
        low = cursor.start
    else:
        low = max(high - timedelta(hours=1), to_datetime(0))
    if low >= high:
        raise bad_parameter("from", "`from` has to be before `to`.")
    return low, high


def _moment(name: str, text: str) -> datetime:
    try:
        return parse_moment(text)
    except ValueError as error:
        raise bad_parameter(name, f"{name}: {error}") from None
