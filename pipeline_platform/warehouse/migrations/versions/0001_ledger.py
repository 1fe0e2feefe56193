"""The ledger, receipts, dead letters and the register of streams."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

STATEMENTS = (
    """
    CREATE TABLE assets (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        asset_key TEXT NOT NULL,
        stream TEXT,
        partition_key TEXT,
        state TEXT NOT NULL,
        attempt INTEGER DEFAULT 0 NOT NULL,
        run_id TEXT,
        job_name TEXT,
        first_ms BIGINT,
        first_seq BIGINT,
        last_ms BIGINT,
        last_seq BIGINT,
        entries BIGINT DEFAULT 0 NOT NULL,
        events_planned BIGINT DEFAULT 0 NOT NULL,
        bytes_planned BIGINT DEFAULT 0 NOT NULL,
        events_read BIGINT DEFAULT 0 NOT NULL,
        events_loaded BIGINT DEFAULT 0 NOT NULL,
        events_negative BIGINT DEFAULT 0 NOT NULL,
        events_rejected BIGINT DEFAULT 0 NOT NULL,
        events_late BIGINT DEFAULT 0 NOT NULL,
        first_ts TIMESTAMP WITH TIME ZONE,
        last_ts TIMESTAMP WITH TIME ZONE,
        error_class TEXT,
        error_message TEXT,
        planned_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        requested_at TIMESTAMP WITH TIME ZONE,
        started_at TIMESTAMP WITH TIME ZONE,
        failed_at TIMESTAMP WITH TIME ZONE,
        not_before TIMESTAMP WITH TIME ZONE,
        loaded_at TIMESTAMP WITH TIME ZONE,
        PRIMARY KEY (id),
        CONSTRAINT assets_state CHECK (state in ('planned', 'failed', 'loaded', 'dead', 'replayed')),
        CONSTRAINT assets_counts_add_up CHECK (
            state <> 'loaded' or events_read = events_loaded + events_negative + events_rejected
        )
    )
    """,
    "CREATE INDEX assets_by_time ON assets (planned_at)",
    "CREATE UNIQUE INDEX assets_range ON assets (stream, first_ms, first_seq) WHERE stream is not null",
    "CREATE INDEX assets_unsettled ON assets (stream, id) WHERE state in ('planned', 'failed')",
    """
    CREATE TABLE streams (
        name TEXT NOT NULL,
        spec JSONB NOT NULL,
        applied_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (name)
    )
    """,
    """
    CREATE TABLE batch_receipts (
        batch_id BIGINT NOT NULL,
        entry_ms BIGINT[] NOT NULL,
        entry_seq BIGINT[] NOT NULL,
        received INTEGER[] NOT NULL,
        negative INTEGER[] NOT NULL,
        rejected INTEGER[] NOT NULL,
        PRIMARY KEY (batch_id),
        FOREIGN KEY(batch_id) REFERENCES assets (id) ON DELETE CASCADE
    )
    """,
    """
    CREATE TABLE dead_letters (
        id BIGINT GENERATED ALWAYS AS IDENTITY,
        stream TEXT NOT NULL,
        reason TEXT NOT NULL,
        field TEXT,
        message TEXT NOT NULL,
        payload TEXT NOT NULL,
        stage TEXT DEFAULT 'validate' NOT NULL,
        batch_id BIGINT,
        run_id TEXT,
        receipt TEXT,
        line INTEGER,
        state TEXT DEFAULT 'open' NOT NULL,
        received_at TIMESTAMP WITH TIME ZONE,
        failed_at TIMESTAMP WITH TIME ZONE DEFAULT now() NOT NULL,
        PRIMARY KEY (id),
        FOREIGN KEY(batch_id) REFERENCES assets (id)
    )
    """,
    "CREATE INDEX dead_letters_by_batch ON dead_letters (batch_id)",
    "CREATE INDEX dead_letters_by_stream ON dead_letters (stream, reason, failed_at)",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for table in ("streams", "dead_letters", "batch_receipts", "assets"):
        op.drop_table(table)
