"""The platform's own tables. A stream's tables are in `stream_tables`.

The comments are the data dictionary: `docs/warehouse.md` is made from them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = sa.MetaData()

UNSETTLED = ("planned", "failed")
STATES = (*UNSETTLED, "loaded", "dead", "replayed")


def _time(name: str, comment: str, *, null: bool = True, now: bool = False) -> sa.Column[object]:
    return sa.Column(
        name,
        sa.TIMESTAMP(timezone=True),
        nullable=null,
        server_default=sa.func.now() if now else None,
        comment=comment,
    )


def _count(name: str, comment: str) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0"), comment=comment)


assets = sa.Table(
    "assets",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="The batch's number."),
    sa.Column("asset_key", sa.Text, nullable=False, comment="The Dagster asset that the work is for."),
    sa.Column("stream", sa.Text, comment="The stream of an ingest batch."),
    sa.Column("partition_key", sa.Text, comment="The partition of a partitioned asset."),
    sa.Column("state", sa.Text, nullable=False, comment="planned, loaded, failed, dead or replayed."),
    sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0"), comment="Runs requested so far."),
    sa.Column("run_id", sa.Text, comment="The Dagster run of the latest attempt."),
    sa.Column("job_name", sa.Text, comment="The Dagster job that does the work."),
    sa.Column("first_ms", sa.BigInteger, comment="Milliseconds of the first queue entry's id."),
    sa.Column("first_seq", sa.BigInteger, comment="Sequence of the first queue entry's id."),
    sa.Column("last_ms", sa.BigInteger, comment="Milliseconds of the last queue entry's id."),
    sa.Column("last_seq", sa.BigInteger, comment="Sequence of the last queue entry's id."),
    _count("entries", "Queue entries (accepted requests) in the range."),
    _count("events_planned", "Events that the planner counted in the range."),
    _count("bytes_planned", "Payload bytes that the planner counted in the range."),
    _count("events_read", "Events found in the queue; loaded + negative + rejected."),
    _count("events_loaded", "Events in the facts."),
    _count("events_negative", "Events dropped for a negative measure."),
    _count("events_rejected", "Events parked in dead_letters."),
    _count("events_late", "Loaded events that came later than the stream's late_after."),
    _time("first_ts", "The earliest event loaded."),
    _time("last_ts", "The latest event loaded."),
    sa.Column("error_class", sa.Text, comment="The class of the latest failure."),
    sa.Column("error_message", sa.Text, comment="What the latest failure said."),
    _time("planned_at", "When the range was cut.", null=False, now=True),
    _time("requested_at", "When the latest attempt was requested."),
    _time("started_at", "When the latest attempt's run began to read."),
    _time("failed_at", "When an attempt last failed."),
    _time("not_before", "A failed batch is not requested again before this time."),
    _time("loaded_at", "When the load transaction began its commit."),
    sa.CheckConstraint(f"state in ({', '.join(repr(state) for state in STATES)})", name="assets_state"),
    sa.CheckConstraint(
        "state <> 'loaded' or events_read = events_loaded + events_negative + events_rejected",
        name="assets_counts_add_up",
    ),
    sa.Index(
        "assets_range", "stream", "first_ms", "first_seq", unique=True, postgresql_where=sa.text("stream is not null")
    ),
    sa.Index("assets_unsettled", "stream", "id", postgresql_where=sa.text("state in ('planned', 'failed')")),
    sa.Index("assets_by_time", "planned_at"),
    comment="The ledger: one row a unit of work, an ingest batch or an ETL partition, with its outcome.",
)

batch_receipts = sa.Table(
    "batch_receipts",
    metadata,
    sa.Column(
        "batch_id",
        sa.BigInteger,
        sa.ForeignKey("assets.id", ondelete="CASCADE"),
        primary_key=True,
        comment="assets.id.",
    ),
    sa.Column("entry_ms", ARRAY(sa.BigInteger), nullable=False, comment="Milliseconds of each entry's id, ascending."),
    sa.Column("entry_seq", ARRAY(sa.BigInteger), nullable=False, comment="Sequence of each entry's id."),
    sa.Column("received", ARRAY(sa.Integer), nullable=False, comment="Events in each entry."),
    sa.Column("negative", ARRAY(sa.Integer), nullable=False, comment="Negatives dropped from each entry."),
    sa.Column("rejected", ARRAY(sa.Integer), nullable=False, comment="Events of each entry in dead_letters."),
    comment="Counts by accepted request, one row a batch: what a receipt's outcome is answered from.",
)

dead_letters = sa.Table(
    "dead_letters",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="The dead letter's number."),
    sa.Column("stream", sa.Text, nullable=False, comment="The stream it was sent to."),
    sa.Column("reason", sa.Text, nullable=False, comment="Why: malformed, unknown_field, missing_field, bad_type, ..."),
    sa.Column("field", sa.Text, comment="The field that is to blame; null for the whole event."),
    sa.Column("message", sa.Text, nullable=False, comment="What is wrong with it."),
    sa.Column("payload", sa.Text, nullable=False, comment="The event as received."),
    sa.Column("stage", sa.Text, nullable=False, server_default="validate", comment="The op that refused it."),
    sa.Column("batch_id", sa.BigInteger, sa.ForeignKey("assets.id"), comment="assets.id."),
    sa.Column("run_id", sa.Text, comment="The Dagster run that refused it."),
    sa.Column("receipt", sa.Text, comment="The receipt of the request it came in."),
    sa.Column("line", sa.Integer, comment="Its place in the request, from 0."),
    sa.Column(
        "state", sa.Text, nullable=False, server_default="open", comment="open until it is replayed or discarded."
    ),
    _time("received_at", "When the request was accepted."),
    _time("failed_at", "When it was refused.", null=False, now=True),
    sa.Index("dead_letters_by_stream", "stream", "reason", "failed_at"),
    sa.Index("dead_letters_by_batch", "batch_id"),
    comment="One row a rejected event, with its payload and the reason.",
)

streams = sa.Table(
    "streams",
    metadata,
    sa.Column("name", sa.Text, primary_key=True, comment="The stream's name."),
    sa.Column("spec", JSONB, nullable=False, comment="The spec that the tables were last brought in line with."),
    _time("applied_at", "When that was.", null=False, now=True),
    comment="The declared streams as migrate last applied them.",
)
