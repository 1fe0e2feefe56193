"""Which names streams and their fields may have: the one list that files, API, tables and views go by.

A name becomes part of URLs, of PostgreSQL's tables, views, indexes and columns, and of Dagster's jobs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NAME = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
LONGEST_IDENTIFIER = 63  # bytes; PostgreSQL cuts what is longer, and two names become one

# What the aggregates keep of every measure, and what they show of it.
KEPT = ("count", "sum", "min", "max", "m2", "first", "first_ts", "last", "last_ts")
SHOWN = ("count", "sum", "min", "max", "avg", "var", "first", "last")
MEASURE_SUFFIXES = tuple(dict.fromkeys((*SHOWN, *KEPT)))

# Columns that every table of PostgreSQL has, whether it is asked for them or not.
SYSTEM_COLUMNS = frozenset({"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"})
# Columns of every stream's tables and views, and what an event has besides its declared fields.
OWN_COLUMNS = frozenset({"ts", "received_at", "batch_id", "series_id", "window_start", "events", "event_id", "stream"})

# Words that PostgreSQL reserves: without quotes they are no names in SQL, or mean something else, as `user` does.
RESERVED = frozenset(
    {
        *("all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "authorization", "binary"),
        *("both", "case", "cast", "check", "collate", "collation", "column", "concurrently", "constraint"),
        *("create", "cross", "current_catalog", "current_date", "current_role", "current_schema", "current_time"),
        *("current_timestamp", "current_user", "default", "deferrable", "desc", "distinct", "do", "else", "end"),
        *("except", "false", "fetch", "for", "foreign", "freeze", "from", "full", "grant", "group", "having"),
        *("ilike", "in", "initially", "inner", "intersect", "into", "is", "isnull", "join", "lateral", "leading"),
        *("left", "like", "limit", "localtime", "localtimestamp", "natural", "not", "notnull", "null", "offset"),
        *("on", "only", "or", "order", "outer", "overlaps", "placing", "primary", "references", "returning"),
        *("right", "select", "session_user", "similar", "some", "symmetric", "system_user", "table", "tablesample"),
        *("then", "to", "trailing", "true", "union", "unique", "user", "using", "variadic", "verbose", "when"),
        *("where", "window", "with"),
    }
)

# The platform's own tables and views.
TABLES = frozenset(
    {
        *("assets", "assets_failed", "assets_latest", "batch_receipts", "dead_letters", "replays", "breakers"),
        *("alerts", "alert_deliveries", "audit", "streams", "users", "ledger_totals", "rollups", "rollup_marks"),
        *("price_quotes", "price_candles", "price_days", "price_nothing", "price_refusals"),
        *("prices_quotes", "prices_quotes_history", "prices_candles", "prices_daily", "prices_gaps"),
        *("prices_nothing", "prices_refused", "orders_usd", "orders_usd_1d"),
        *("alembic_version", "pipeline_alembic_version"),
    }
)
# Their indexes: PostgreSQL keeps one list of names for tables, views, indexes and sequences. Those that end like a
# stream's, or as PostgreSQL itself names them, need no place here.
INDEXES = frozenset(
    {
        *("alert_deliveries_pending", "alerts_by_end", "alerts_by_time", "alerts_open", "assets_by_asset"),
        *("assets_by_failure", "assets_by_run", "assets_by_time", "assets_failed_runs", "assets_range"),
        *("assets_unsettled", "audit_by_actor", "audit_by_event", "audit_by_time", "audit_key"),
        *("dead_letters_by_batch", "dead_letters_by_receipt", "dead_letters_by_replay_batch", "dead_letters_by_state"),
        *("dead_letters_by_stream", "price_quotes_by_fetch", "replays_retries"),
    }
)
TAKEN = TABLES | INDEXES
# What a stream's name is made longer by, for its tables and views,
SUFFIXES = ("_series", "_events", "_minutes", "_hours", "_days", "_event_ids", "_1m", "_1h", "_1d")
# and for their indexes, sequences and partitions.
_RELATION = re.compile(
    rf"({'|'.join(SUFFIXES)})(_key|_by_time|_by_batch|_[0-9]{{8,}}(_ts_brin)?)?\Z|_(pkey|pkc|id_seq)\Z"
)
LONGEST_SUFFIX = "_events_20260101_ts_brin"
LONGEST_STREAM = LONGEST_IDENTIFIER - len(LONGEST_SUFFIX)
# Dagster's job of a stream is `ingest_<stream>`, and what it executes `ingest_<stream>_batch`.
OP_SUFFIX = "_batch"


def why_no_stream(name: str) -> str | None:
    """Why a stream cannot have the name; None where it can."""
    if not NAME.match(name) or len(name) > LONGEST_STREAM:
        return (
            f"a stream's name is lower case letters, digits and _, starting with a letter, at most {LONGEST_STREAM}: "
            f"with {LONGEST_SUFFIX} it has to fit into PostgreSQL's {LONGEST_IDENTIFIER}"
        )
    if name.startswith("pg_"):
        return "names that begin with pg_ are PostgreSQL's own; choose another"
    if name in RESERVED:
        return f"{name!r} is a word of SQL, so `select * from {name}` would not ask the stream; choose another"
    if name in TAKEN or _RELATION.search(name):
        return f"{name!r} is, or ends like, a name that the warehouse uses itself; choose another"
    both = next((name + suffix for suffix in SUFFIXES if name + suffix in TAKEN), None)
    return f"{both!r}, which it would need, is a name that the warehouse uses itself; choose another" if both else None


def why_no_field(name: str) -> str | None:
    """Why a dimension or a measure cannot have the name; None where it can."""
    if not NAME.match(name):
        return "a field's name is lower case letters, digits and _, at most 40, starting with a letter"
    if name in OWN_COLUMNS:
        return "this name is the platform's own; choose another"
    if name in SYSTEM_COLUMNS:
        return "PostgreSQL has a column of this name in every table; choose another"
    return None


def no_stream(name: str, known: Iterable[str]) -> str:
    """What is said to somebody who names a stream that is none."""
    names = sorted(known)
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"There is no stream {name[:40]!r}; there are {listed}."


def derived_from(measure: str) -> frozenset[str]:
    """The columns of the aggregates that a measure becomes."""
    return frozenset(f"{measure}_{suffix}" for suffix in MEASURE_SUFFIXES)


def one_for_two(streams: Iterable[str]) -> list[tuple[str, str]]:
    """Streams that cannot be there together, since a name of the one is the other's; the one to blame second."""
    there = set(streams)
    return [(name, name + OP_SUFFIX) for name in sorted(there) if name + OP_SUFFIX in there]
