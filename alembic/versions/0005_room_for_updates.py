"""Leave room on each page for updated sessions, so that a rotation changes one page and no index (HOT).

This only changes the catalogue and applies to pages written from now on. SQLite updates rows in place.
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE sessions SET (fillfactor = 90)")
