"""The platform's own tables. A stream's tables are in `stream_tables`.

The comments are the data dictionary: `docs/warehouse.md` is made from them.
"""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = sa.MetaData()

KINDS = ("ingest", "replay", "etl")
UNSETTLED = ("planned", "failed")
STATES = (*UNSETTLED, "loaded", "dead", "replayed", "obsolete")


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
    sa.Column(
        "kind",
        sa.Text,
        nullable=False,
        server_default="ingest",
        comment="ingest (a range of the queue), replay (dead letters again) or etl (a partition).",
    ),
    sa.Column("asset_key", sa.Text, nullable=False, comment="The Dagster asset that the work is for."),
    sa.Column("stream", sa.Text, comment="The stream of an ingest batch or a replay."),
    sa.Column("partition_key", sa.Text, comment="The partition of a partitioned asset."),
    sa.Column("state", sa.Text, nullable=False, comment="planned, loaded, failed, dead, replayed or obsolete."),
    sa.Column("attempt", sa.Integer, nullable=False, server_default=sa.text("0"), comment="Runs requested so far."),
    sa.Column("run_id", sa.Text, comment="The Dagster run of the latest attempt."),
    sa.Column(
        "run_ids",
        ARRAY(sa.Text),
        nullable=False,
        server_default=sa.text("'{}'"),
        comment="The runs of all attempts, the latest 50.",
    ),
    sa.Column(
        "op_retries",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="How often ops of the latest attempt were tried again.",
    ),
    sa.Column("replay_id", sa.BigInteger, sa.ForeignKey("replays.id"), comment="replays.id of a replay."),
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
    _count("events_duplicate", "Those of events_rejected that only repeat an event_id."),
    _count("events_late", "Loaded events that came later than the stream's late_after."),
    _count("events_behind", "Loaded events whose hour had been rolled up already; it is corrected."),
    _time("first_ts", "The earliest event loaded."),
    _time("last_ts", "The latest event loaded."),
    sa.Column("error_class", sa.Text, comment="The class of the latest failure."),
    sa.Column("error_message", sa.Text, comment="What the latest failure said."),
    sa.Column(
        "error_kind",
        sa.Text,
        comment="transient, permanent (somebody has to act), poison (the data), lost or canceled (the run).",
    ),
    sa.Column(
        "failures",
        JSONB,
        nullable=False,
        server_default=sa.text("'[]'"),
        comment="The latest 20 failures: attempt, try, at, run_id, op, kind, error_class, message.",
    ),
    _time("planned_at", "When the range was cut.", null=False, now=True),
    _time("requested_at", "When the latest attempt was requested."),
    _time("started_at", "When the latest attempt's run began to read."),
    _time("failed_at", "When an attempt last failed."),
    _time("not_before", "A failed batch is not requested again before this time."),
    _time("loaded_at", "When the load transaction began its commit."),
    sa.CheckConstraint(f"state in ({', '.join(repr(state) for state in STATES)})", name="assets_state"),
    sa.CheckConstraint(f"kind in ({', '.join(repr(kind) for kind in KINDS)})", name="assets_kind"),
    sa.CheckConstraint(
        "state <> 'loaded' or events_read = events_loaded + events_negative + events_rejected",
        name="assets_counts_add_up",
    ),
    sa.Index(
        "assets_range", "stream", "first_ms", "first_seq", unique=True, postgresql_where=sa.text("kind = 'ingest'")
    ),
    sa.Index("assets_unsettled", "stream", "id", postgresql_where=sa.text("state in ('planned', 'failed')")),
    sa.Index("assets_by_time", "planned_at"),
    sa.Index("assets_by_failure", "failed_at", postgresql_where=sa.text("failed_at is not null")),
    sa.Index("assets_by_asset", "asset_key", sa.text("coalesce(partition_key, '')"), "id"),
    sa.Index("assets_by_run", "run_ids", postgresql_using="gin"),
    sa.Index("assets_failed_runs", "run_id", unique=True, postgresql_where=sa.text("starts_with(asset_key, 'job/')")),
    comment="The ledger: one row a unit of work, an ingest batch or an ETL partition, with its outcome.",
)

ledger_totals = sa.Table(
    "ledger_totals",
    metadata,
    sa.Column("stream", sa.Text, primary_key=True, comment="The stream."),
    sa.Column("through_id", sa.BigInteger, nullable=False, comment="assets.id of the last batch that is in the sums."),
    _count("batches", "Ingest batches that were loaded."),
    _count("events_read", "Events found in the queue."),
    _count("events_loaded", "Events in the facts."),
    _count("events_negative", "Events dropped for a negative measure."),
    _count("events_rejected", "Events parked in dead_letters that no replay has settled."),
    _time("last_loaded_at", "When the latest of the batches was loaded."),
    comment="A stream's settled batches added up, up to through_id, also those that `assets` no longer has.",
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
        "state", sa.Text, nullable=False, server_default="open", comment="open, replaying, replayed or discarded."
    ),
    sa.Column(
        "attempts",
        sa.Integer,
        nullable=False,
        server_default=sa.text("1"),
        comment="How often it was refused: once, and once for each replay that failed.",
    ),
    sa.Column("replay_id", sa.BigInteger, sa.ForeignKey("replays.id"), comment="replays.id of the latest replay."),
    sa.Column(
        "replay_batch_id", sa.BigInteger, sa.ForeignKey("assets.id"), comment="assets.id of the latest replay's batch."
    ),
    _time("received_at", "When the request was accepted."),
    _time("first_failed_at", "When it was refused first.", null=False, now=True),
    _time("last_failed_at", "When it was refused last.", null=False, now=True),
    _time("settled_at", "When it was replayed or discarded."),
    sa.CheckConstraint("state in ('open', 'replaying', 'replayed', 'discarded')", name="dead_letters_state"),
    sa.Index("dead_letters_by_stream", "stream", "reason", "last_failed_at"),
    sa.Index("dead_letters_by_state", "state", "last_failed_at"),
    sa.Index("dead_letters_by_batch", "batch_id"),
    sa.Index("dead_letters_by_receipt", "receipt"),
    sa.Index(
        "dead_letters_by_replay_batch", "replay_batch_id", postgresql_where=sa.text("replay_batch_id is not null")
    ),
    comment="One row a rejected event, with its payload and the reason.",
)

replays = sa.Table(
    "replays",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="The request's number."),
    sa.Column("action", sa.Text, nullable=False, comment="replay, discard, or retry (of a row of assets)."),
    sa.Column("stream", sa.Text, comment="The stream of the dead letters, where the filter names one."),
    sa.Column("filter", JSONB, nullable=False, comment="Which dead letters, or which row, were asked for."),
    sa.Column("edit", JSONB, comment="What was to be changed in the payloads: a merge patch, renames, expressions."),
    sa.Column("requested_by", sa.Text, nullable=False, comment="`key <id>`, `user <name>`, or the CLI's system user."),
    sa.Column("note", sa.Text, comment="What the requester said about it."),
    sa.Column("state", sa.Text, nullable=False, comment="running or done."),
    _count("matched", "Dead letters that the request took."),
    _count("passed", "Events that are in the facts now."),
    _count("negative", "Events dropped for a negative measure."),
    _count("failed", "Dead letters that were refused again, and are open again."),
    _time("requested_at", "When it was asked for.", null=False, now=True),
    _time("finished_at", "When its last batch was settled."),
    sa.CheckConstraint("action in ('replay', 'discard', 'retry')", name="replays_action"),
    sa.CheckConstraint("state in ('running', 'done')", name="replays_state"),
    sa.Index("replays_retries", "id", postgresql_where=sa.text("action = 'retry' and state = 'running'")),
    comment="The audit: who replayed or discarded which dead letters, or tried which row again, and what came of it.",
)

breakers = sa.Table(
    "breakers",
    metadata,
    sa.Column("stream", sa.Text, primary_key=True, comment="The stream."),
    sa.Column("state", sa.Text, nullable=False, comment="closed, open (nothing is planned) or half_open (one probe)."),
    sa.Column("reason", sa.Text, comment="Why it opened."),
    sa.Column("examples", JSONB, comment="Up to three rejects that opened it, without payloads beyond a bound."),
    _count("counted_after", "Rejects of batches up to this assets.id no longer count."),
    sa.Column(
        "openings",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="Times it has opened, each soon after the one before; the pause grows with it.",
    ),
    sa.Column("probe_batch_id", sa.BigInteger, comment="assets.id of the small batch that decides when half open."),
    _time("changed_at", "When the state last changed.", null=False, now=True),
    _time("probe_at", "When an open breaker lets a probe through."),
    sa.CheckConstraint("state in ('closed', 'open', 'half_open')", name="breakers_state"),
    comment="One row a stream whose rejects have opened its breaker: planning pauses, the backlog grows safely.",
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="The alert's number."),
    sa.Column("key", sa.Text, nullable=False, comment="What it is about; open alerts with one key are one alert."),
    sa.Column("kind", sa.Text, nullable=False, comment="breaker_open, batch_failing, batch_dead, asset_failing, ..."),
    sa.Column("severity", sa.Text, nullable=False, comment="info, warning or critical."),
    sa.Column("stream", sa.Text, comment="The stream that it is about, if any."),
    sa.Column("title", sa.Text, nullable=False, comment="One line."),
    sa.Column("body", sa.Text, nullable=False, comment="What happened and what to do; never a secret."),
    sa.Column("sample", JSONB, comment="A bounded sample, such as three rejects."),
    sa.Column(
        "times",
        sa.BigInteger,
        nullable=False,
        server_default=sa.text("1"),
        comment="How often it was raised since it opened.",
    ),
    _time("raised_at", "When it was raised first.", null=False, now=True),
    _time("last_raised_at", "When it was raised last.", null=False, now=True),
    _time("resolved_at", "When it was over; null while it lasts."),
    sa.CheckConstraint("severity in ('info', 'warning', 'critical')", name="alerts_severity"),
    sa.Index("alerts_open", "key", unique=True, postgresql_where=sa.text("resolved_at is null")),
    sa.Index("alerts_by_time", "last_raised_at"),
    sa.Index("alerts_by_end", "resolved_at", postgresql_where=sa.text("resolved_at is not null")),
    comment="The outbox of alerts, written in the transaction of the change that they tell of.",
)

alert_deliveries = sa.Table(
    "alert_deliveries",
    metadata,
    sa.Column(
        "alert_id",
        sa.BigInteger,
        sa.ForeignKey("alerts.id", ondelete="CASCADE"),
        primary_key=True,
        comment="alerts.id.",
    ),
    sa.Column("phase", sa.Text, primary_key=True, comment="raised or resolved."),
    sa.Column("route", sa.Text, primary_key=True, comment="The route's name in the alerts file."),
    sa.Column("state", sa.Text, nullable=False, comment="pending, sent, or dropped (with the error)."),
    sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0"), comment="Times it was tried."),
    sa.Column(
        "refusals",
        sa.Integer,
        nullable=False,
        server_default=sa.text("0"),
        comment="Times the receiver refused it, as opposed to being away.",
    ),
    sa.Column("error", sa.Text, comment="What the last try met with."),
    _time("not_before", "Not tried again before this time: the receiver asked for a pause."),
    _time("sent_at", "When the receiver took it."),
    sa.CheckConstraint("phase in ('raised', 'resolved')", name="alert_deliveries_phase"),
    sa.CheckConstraint("state in ('pending', 'sent', 'dropped')", name="alert_deliveries_state"),
    sa.Index("alert_deliveries_pending", "route", postgresql_where=sa.text("state = 'pending'")),
    comment="One row an alert, phase and route: what has been sent where.",
)

rollup_marks = sa.Table(
    "rollup_marks",
    metadata,
    sa.Column("stream", sa.Text, primary_key=True, comment="The stream."),
    sa.Column("grain", sa.Text, primary_key=True, comment="1h or 1d."),
    sa.Column("window_start", sa.TIMESTAMP(timezone=True), primary_key=True, comment="The window's start."),
    _time("marked_at", "When a load or a rollup of its hours first touched it.", null=False, now=True),
    sa.CheckConstraint("grain in ('1h', '1d')", name="rollup_marks_grain"),
    comment="Windows that have to be rolled up, or rolled up again: marked by the load that touched them.",
)

rollups = sa.Table(
    "rollups",
    metadata,
    sa.Column("stream", sa.Text, primary_key=True, comment="The stream."),
    sa.Column("grain", sa.Text, primary_key=True, comment="1h or 1d."),
    sa.Column("window_start", sa.TIMESTAMP(timezone=True), primary_key=True, comment="The window's start."),
    sa.Column("events", sa.BigInteger, nullable=False, comment="Events in the window."),
    sa.Column(
        "times", sa.Integer, nullable=False, server_default=sa.text("1"), comment="How often it has been rolled up."
    ),
    _time("rolled_at", "When that was last done.", null=False, now=True),
    sa.CheckConstraint("grain in ('1h', '1d')", name="rollups_grain"),
    comment="Windows that have been rolled up: late events correct them.",
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True, comment="The row's number."),
    sa.Column("key", sa.Uuid, nullable=False, comment="The entry's own: sent again, it is not a second row."),
    _time("at", "When it happened, by the clock of who recorded it.", null=False),
    sa.Column("event", sa.Text, nullable=False, comment="login, forbidden, key-created, dead-letters-read, ..."),
    sa.Column(
        "actor",
        sa.Text,
        nullable=False,
        comment="`key <id>`, `user <name>`, or `os <name>` of the CLI; empty: unknown.",
    ),
    sa.Column("actor_role", sa.Text, nullable=False, comment="The actor's role, or scopes, at that time."),
    sa.Column("address", sa.Text, nullable=False, comment="Where the request came from; an IPv6 client's /64."),
    sa.Column("outcome", sa.Text, nullable=False, comment="ok, refused or failed."),
    sa.Column("detail", JSONB, nullable=False, comment="What it was about: filters, numbers, reasons; no payloads."),
    sa.Index("audit_key", "key", unique=True),
    sa.Index("audit_by_time", "at"),
    sa.Index("audit_by_event", "event", "id"),
    sa.Index("audit_by_actor", "actor", "id"),
    comment="Who did what: rows are added and never changed. Not for the reader; the loader adds and looks.",
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("name", sa.Text, primary_key=True, comment="The user's name, in lower case."),
    sa.Column("digest", sa.Text, nullable=False, comment="argon2id of the password, with its salt and costs."),
    sa.Column("role", sa.Text, nullable=False, comment="viewer, operator or admin."),
    sa.Column("created_by", sa.Text, nullable=False, comment="Who added the user: `os <name>` of the CLI."),
    _time("created_at", "When that was.", null=False, now=True),
    _time("disabled_at", "Since when the user may not log in."),
    _time("password_changed_at", "When the password was last set.", null=False, now=True),
    sa.Column(
        "sessions_from",
        sa.TIMESTAMP(timezone=True),
        nullable=False,
        server_default=sa.text("clock_timestamp()"),
        comment="Sessions that began before this was set are over.",
    ),
    sa.CheckConstraint("role in ('viewer', 'operator', 'admin')", name="users_role"),
    comment="People with a password. Not for the reader; the loader's login looks, for logins.",
)

streams = sa.Table(
    "streams",
    metadata,
    sa.Column("name", sa.Text, primary_key=True, comment="The stream's name."),
    sa.Column("spec", JSONB, nullable=False, comment="The spec that the tables were last brought in line with."),
    _time("applied_at", "When that was.", null=False, now=True),
    comment="The declared streams as migrate last applied them.",
)
