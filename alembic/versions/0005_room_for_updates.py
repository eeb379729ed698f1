"""Room beside each session for its next version, so that a rotation changes one page and no index (HOT).

Only a note in the catalogue, and only for pages that are written from now on; SQLite changes rows in place.
"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE sessions SET (fillfactor = 90)")
