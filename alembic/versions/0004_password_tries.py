"""Add the counters of wrong passwords."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "password_tries",
        sa.Column("bucket", sa.LargeBinary(32), nullable=False),
        sa.Column("user_id", sa.Uuid),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("ends_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("bucket", name="pk_password_tries"),
    )
    op.create_index("ix_password_tries_user_id_bucket", "password_tries", ["user_id", "bucket"])
    op.create_index("ix_password_tries_ends_at", "password_tries", ["ends_at"])
