"""Failures: what the ledger keeps of each, replays of dead letters, breakers and the outbox of alerts."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

STATEMENTS = (
    """
    create table replays (
        id bigint generated always as identity primary key,
        action text not null,
        stream text,
        filter jsonb not null,
        edit jsonb,
        requested_by text not null,
        note text,
        state text not null,
        matched bigint default 0 not null,
        passed bigint default 0 not null,
        negative bigint default 0 not null,
        failed bigint default 0 not null,
        requested_at timestamptz default now() not null,
        finished_at timestamptz,
        constraint replays_action check (action in ('replay', 'discard')),
        constraint replays_state check (state in ('running', 'done'))
    )
    """,
    """
    alter table assets
        add column kind text default 'ingest' not null,
        add column run_ids text[] default '{}' not null,
        add column op_retries integer default 0 not null,
        add column replay_id bigint references replays (id),
        add column error_kind text,
        add column events_duplicate bigint default 0 not null,
        add column failures jsonb default '[]' not null,
        add constraint assets_kind check (kind in ('ingest', 'replay', 'etl'))
    """,
    "update assets set run_ids = array[run_id] where run_id is not null",
    "drop index assets_range",
    "create unique index assets_range on assets (stream, first_ms, first_seq) where kind = 'ingest'",
    "create index assets_by_failure on assets (failed_at) where failed_at is not null",
    "create index assets_by_asset on assets (asset_key, coalesce(partition_key, ''), id)",
    "create index assets_by_run on assets using gin (run_ids)",
    "create unique index assets_failed_runs on assets (run_id) where starts_with(asset_key, 'job/')",
    "alter table dead_letters rename column failed_at to first_failed_at",
    """
    alter table dead_letters
        add column attempts integer default 1 not null,
        add column replay_id bigint references replays (id),
        add column replay_batch_id bigint references assets (id),
        add column last_failed_at timestamptz default now() not null,
        add column settled_at timestamptz,
        add constraint dead_letters_state check (state in ('open', 'replaying', 'replayed', 'discarded'))
    """,
    "update dead_letters set last_failed_at = first_failed_at",
    "drop index dead_letters_by_stream",
    "create index dead_letters_by_stream on dead_letters (stream, reason, last_failed_at)",
    "create index dead_letters_by_state on dead_letters (state, last_failed_at)",
    "create index dead_letters_by_receipt on dead_letters (receipt)",
    """
    create index dead_letters_by_replay_batch on dead_letters (replay_batch_id)
    where replay_batch_id is not null
    """,
    """
    create table breakers (
        stream text primary key,
        state text not null,
        reason text,
        examples jsonb,
        counted_after bigint default 0 not null,
        openings integer default 0 not null,
        probe_batch_id bigint,
        changed_at timestamptz default now() not null,
        probe_at timestamptz,
        constraint breakers_state check (state in ('closed', 'open', 'half_open'))
    )
    """,
    """
    create table alerts (
        id bigint generated always as identity primary key,
        key text not null,
        kind text not null,
        severity text not null,
        stream text,
        title text not null,
        body text not null,
        sample jsonb,
        times bigint default 1 not null,
        raised_at timestamptz default now() not null,
        last_raised_at timestamptz default now() not null,
        resolved_at timestamptz,
        constraint alerts_severity check (severity in ('info', 'warning', 'critical'))
    )
    """,
    "create unique index alerts_open on alerts (key) where resolved_at is null",
    "create index alerts_by_time on alerts (last_raised_at)",
    "create index alerts_by_end on alerts (resolved_at) where resolved_at is not null",
    """
    create table alert_deliveries (
        alert_id bigint references alerts (id) on delete cascade,
        phase text,
        route text,
        state text not null,
        attempts integer default 0 not null,
        error text,
        not_before timestamptz,
        sent_at timestamptz,
        primary key (alert_id, phase, route),
        constraint alert_deliveries_phase check (phase in ('raised', 'resolved')),
        constraint alert_deliveries_state check (state in ('pending', 'sent', 'dropped'))
    )
    """,
    "create index alert_deliveries_pending on alert_deliveries (route) where state = 'pending'",
)


def upgrade() -> None:
    for statement in STATEMENTS:
        op.execute(statement)


def downgrade() -> None:
    for view in ("assets_latest", "assets_failed"):
        op.execute(f"drop view if exists {view}")
    for table in ("alert_deliveries", "alerts", "breakers"):
        op.execute(f"drop table {table}")
    op.execute(
        "alter table dead_letters drop column attempts, drop column replay_id, drop column replay_batch_id, "
        "drop column last_failed_at, drop column settled_at, drop constraint dead_letters_state"
    )
    op.execute("alter table dead_letters rename column first_failed_at to failed_at")
    op.execute("create index dead_letters_by_stream on dead_letters (stream, reason, failed_at)")
    op.execute("drop index dead_letters_by_receipt")
    # A replay's range is no range of the queue; without the kind it would look like one.
    op.execute("delete from assets where kind <> 'ingest'")
    op.execute("drop index assets_range")
    op.execute(
        "alter table assets drop column kind, drop column run_ids, drop column op_retries, drop column replay_id, "
        "drop column error_kind, drop column failures, drop column events_duplicate"
    )
    op.execute("create unique index assets_range on assets (stream, first_ms, first_seq) where stream is not null")
    op.execute("drop index assets_by_failure")
    op.execute("drop index if exists assets_by_asset")
    op.execute("drop index if exists assets_failed_runs")
    op.execute("drop table replays")
