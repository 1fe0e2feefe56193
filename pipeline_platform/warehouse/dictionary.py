"""The data dictionary: Markdown made from the comments of the tables and views.

`python -m pipeline_platform.warehouse.dictionary > docs/warehouse.md` writes it; a test checks that it is up to date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import sqlalchemy as sa

from pipeline_platform.core.streams import StreamSpec, load_specs
from pipeline_platform.warehouse.ledger_views import LEDGER_VIEWS, LedgerView
from pipeline_platform.warehouse.price_tables import PRICE_TABLES
from pipeline_platform.warehouse.price_views import PRICE_VIEWS
from pipeline_platform.warehouse.schema import metadata
from pipeline_platform.warehouse.stream_tables import event_ids_table, sql_type, stream_tables
from pipeline_platform.warehouse.stream_views import View

EXAMPLE = "telemetry"
PLATFORM = (
    *("assets", "dead_letters", "batch_receipts", "ledger_totals", "replays", "breakers"),
    *("alerts", "alert_deliveries", "audit", "users", "streams"),
)
ORDER = (*PLATFORM, "rollups", "rollup_marks", *(table.name for table in PRICE_TABLES))

OPENING = """
# The warehouse

<!-- Made from the comments in the tables by `python -m pipeline_platform.warehouse.dictionary > docs/warehouse.md`. -->

Everything is in the schema `public` of one PostgreSQL database. There are the platform's own tables, which are always
there, and five relations for each stream (six with `unique_event_id`), which follow from its file alone. The same
comments are in the database: `\\d+ assets` in psql shows them.

## Reading it

Read the views: `<stream>` has every event and `<stream>_1m` the one-minute aggregates, both with the dimensions
spelled out. The tables below them hold a number (`series_id`) in their stead and may change; the views keep their
columns, and a field that is added to a stream appears at their end.

```sql
select window_start, source, value_avg, sqrt(value_var) as deviation
from telemetry_1m
where metric = 'temperature_c' and window_start >= now() - interval '1 hour'
order by window_start, source;
```

A query on `<stream>` is fast when it bounds `ts`: the facts are partitioned by UTC day. From minutes to longer
windows: counts and sums add up, `min` and `max` are the least and the greatest; an average is
`sum(value_sum) / sum(value_count)`, not the average of averages.

The role `pipeline_reader` may select from all of it but `audit` and `users`, and write nothing.

## Times

All times are `timestamptz`, stored in UTC and shown in your session's time zone. Windows are half-open: a window
holds the moments from its start to just before the start of the next.

| Column | Whose clock | Meaning |
|---|---|---|
| `ts` | the producer's | When the event happened; when it did not say, `received_at`. |
| `received_at` | the queue's | When the request was made durable. Late and future events are judged by it. |
| `planned_at` | PostgreSQL's | When the batch's range was cut. |
| `requested_at`, `started_at`, `failed_at` | PostgreSQL's | The stages of the latest attempt. |
| `loaded_at` | PostgreSQL's | When the load was about to commit: from then on queries see the batch. |

## States of a batch

| `assets.state` | Meaning | Next |
|---|---|---|
| `planned` | A run is under way, or waits for `not_before` after a transient failure. | `loaded` or `failed` |
| `failed` | The latest attempt failed for another reason and left nothing. | `planned` after `not_before`, or `dead` |
| `loaded` | Facts, aggregates, dead letters and counts are there, by one commit. | |
| `dead` | Given up; its events are in `dead_letters`. | `replayed` |
| `replayed` | Was dead and has been loaded since. | |
| `obsolete` | Had failed, and is not to be done any more: `error_message` says why. | |

For every loaded batch `events_read = events_loaded + events_negative + events_rejected`; the table refuses anything
else. `failures` keeps what the latest attempts met with. Entries are deleted from the queue only when their batch and
all before it are settled.
"""
PRICES = """
## Prices

Read the views; `docs/backfills.md` tells how the rows come and go. Prices are `numeric`, exactly as the source gave
them. A candle is [`open_time`, `open_time` + `interval`) in UTC.
"""
SEE_EXAMPLE = f"""
## Tables and views of a stream

Taking `{EXAMPLE}` as the example, whose dimensions are {{dimensions}} and whose measure is {{measures}}. Another
stream has its own names in their places. The table of event ids is there only in a stream with `unique_event_id: true`.
"""


def dictionary(spec: StreamSpec) -> str:
    """The whole document, with `spec` as the example of a stream."""
    tables = stream_tables(spec)
    parts = [OPENING.strip(), "## The platform's tables"]
    parts += [_table(metadata.tables[name]) for name in PLATFORM]
    parts += [_ledger_view(view) for view in LEDGER_VIEWS]
    parts.append(PRICES.strip())
    parts += [_view(view) for view in PRICE_VIEWS]
    parts += [_table(table) for table in PRICE_TABLES]
    names = {
        "dimensions": " and ".join(f"`{name}`" for name in spec.dimensions),
        "measures": " and ".join(f"`{name}`" for name in spec.measures),
    }
    parts.append(SEE_EXAMPLE.format(**names).strip())
    parts += [_view(view) for view in tables.views]
    parts += [
        _table(table)
        for table in (tables.events, tables.minutes, tables.hours, tables.days, tables.series, event_ids_table(spec))
    ]
    return "\n\n".join(parts) + "\n"


def _table(table: sa.Table) -> str:
    rows = (
        (column.name, sql_type(column), "yes" if column.nullable else "", column.comment or "")
        for column in table.columns
    )
    return "\n".join(_section(table.name, "table", table.comment or "", ("Null",), rows))


def _view(view: View) -> str:
    rows = ((column.name, column.type, column.comment) for column in view.columns)
    return "\n".join(_section(view.name, "view", view.comment, (), rows))


def _ledger_view(view: LedgerView) -> str:
    rows = ((name, _type_of(name), comment) for name, comment in view.columns.items())
    return "\n".join(_section(view.name, "view", view.comment, (), rows))


def _type_of(name: str) -> str:
    columns = metadata.tables["assets"].columns
    return sql_type(columns[name]) if name in columns else "text"


def _section(
    name: str, kind: str, comment: str, extra: tuple[str, ...], rows: Iterable[tuple[str, ...]]
) -> Iterator[str]:
    yield f"### `{name}` ({kind})\n\n{comment}\n"
    yield "| " + " | ".join(("Column", "Type", *extra, "Meaning")) + " |"
    yield "|---" * (3 + len(extra)) + "|"
    for column, *others in rows:
        yield f"| `{column}` | " + " | ".join(_cell(other) for other in others) + " |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    print(dictionary(load_specs()[EXAMPLE]), end="")
