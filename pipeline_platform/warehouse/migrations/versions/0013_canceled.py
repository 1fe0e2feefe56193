"""`error_kind` knows a canceled run."""

from __future__ import annotations

from alembic import op

revision = "0013"
down_revision = "0012"

COMMENT = "comment on column assets.error_kind is '{}'"


def upgrade() -> None:
    op.execute(
        COMMENT.format("transient, permanent (somebody has to act), poison (the data), lost or canceled (the run).")
    )


def downgrade() -> None:
    op.execute(COMMENT.format("transient, permanent (somebody has to act), poison (the data) or lost (the run)."))
