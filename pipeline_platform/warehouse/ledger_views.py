"""The views of the ledger that people read: what failed, and the newest unit of work of each asset.

Each `migrate` makes them anew after the tables: a view holds no data. Columns mean what they mean in `assets`.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from pipeline_platform.warehouse.schema import assets

_COMMON = (
    *("id", "kind", "asset_key", "partition_key", "stream", "state", "attempt", "op_retries"),
    *("error_kind", "error_class", "error_message", "failed_at", "not_before", "run_id", "run_ids", "job_name"),
    *("entries", "events_planned", "planned_at"),
)
_FAILED = (*_COMMON, "failures")
_LATEST = (
    *_COMMON,
    *("events_read", "events_loaded", "events_negative", "events_rejected"),
    *("requested_at", "started_at", "loaded_at"),
)


@dataclass(frozen=True)
class LedgerView:
    """A view with what it means, and what its columns mean."""

    name: str
    comment: str
    query: str
    columns: dict[str, str]


def _comments(names: tuple[str, ...]) -> dict[str, str]:
    return {name: str(assets.c[name].comment) for name in names}


LEDGER_VIEWS = (
    LedgerView(
        "assets_failed",
        "Units of work that failed and are not loaded: to be tried again, or dead.",
        f"""
        select {", ".join(_FAILED)},
            stream || '.' || first_ms || '-' || first_seq as first_receipt,
            stream || '.' || last_ms || '-' || last_seq as last_receipt
        from assets
        where failed_at is not null and state in ('planned', 'failed', 'dead')
        """,
        _comments(_FAILED)
        | {"first_receipt": "The first request of an ingest batch.", "last_receipt": "The last request of it."},
    ),
    LedgerView(
        "assets_latest",
        "The newest unit of work of each asset and partition.",
        # From key to key over an index: a ledger has many more rows than assets and partitions.
        f"""
        with recursive keys as (
            (select asset_key, coalesce(partition_key, '') as part from assets order by 1, 2 limit 1)
            union all
            select next.* from keys, lateral (
                select a.asset_key, coalesce(a.partition_key, '') as part from assets a
                where (a.asset_key, coalesce(a.partition_key, '')) > (keys.asset_key, keys.part)
                order by 1, 2 limit 1
            ) next
        )
        select latest.* from keys, lateral (
            select {", ".join(_LATEST)} from assets a
            where a.asset_key = keys.asset_key and coalesce(a.partition_key, '') = keys.part
            order by a.id desc limit 1
        ) latest
        """,
        _comments(_LATEST),
    ),
)


def make_ledger_views(connection: sa.Connection) -> None:
    """Makes or replaces the views, with their comments."""
    for view in LEDGER_VIEWS:
        connection.execute(sa.text(f"create or replace view {view.name} as {view.query}"))
        comments = {f"view {view.name}": view.comment}
        comments |= {f"column {view.name}.{name}": comment for name, comment in view.columns.items()}
        for target, comment in comments.items():
            quoted = comment.replace("'", "''")
            connection.execute(sa.text(f"comment on {target} is '{quoted}'"))
