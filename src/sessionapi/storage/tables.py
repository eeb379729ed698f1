"""Table definitions. Alembic owns the schema; a test compares these with the result of the migrations.

A time is stored as whole microseconds since 1970. This is exact, the same on both engines, comparable in SQL,
and an integer in the JSON that carries a batch.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """Return whole microseconds since 1970; a naive datetime is an error."""
    return (moment - EPOCH) // _MICROSECOND


class Moment(sa.TypeDecorator[datetime]):
    """Column type for an aware datetime in UTC, stored as BIGINT microseconds."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:  # noqa: ARG002
        """Convert for the database."""
        return None if value is None else to_microseconds(value)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[Any], Any]:  # noqa: ARG002
        """Return the conversion from the database as a plain function, because each session has eight
        datetimes."""
        return _moment


def _moment(value: int | None) -> datetime | None:
    return None if value is None else EPOCH + value * _MICROSECOND


Json = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")


class Texts(sa.TypeDecorator[tuple[str, ...]]):
    """Column type for a tuple of strings, stored as a JSON array."""

    impl = sa.JSON
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[Any]:
        """Return JSONB for PostgreSQL and JSON for SQLite."""
        return dialect.type_descriptor(postgresql.JSONB() if dialect.name == "postgresql" else sa.JSON())

    def process_bind_param(self, value: tuple[str, ...] | None, dialect: sa.Dialect) -> list[str] | None:  # noqa: ARG002
        """Convert the tuple to a list."""
        return None if value is None else list(value)

    def process_result_value(self, value: list[str] | None, dialect: sa.Dialect) -> tuple[str, ...] | None:  # noqa: ARG002
        """Convert the list to a tuple."""
        return None if value is None else tuple(value)


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("username", sa.String(150), nullable=False),
    sa.Column("username_key", sa.String(450), nullable=False, unique=True),
    sa.Column("email", sa.String(320)),
    sa.Column("password_hash", sa.String(512)),
    sa.Column("credential_version", sa.Integer, nullable=False),
    sa.Column("roles", Texts, nullable=False),
    sa.Column("claims", Json, nullable=False),
    sa.Column("preferences", Json, nullable=False),
    sa.Column("disabled_at", Moment),
    sa.Column("deleted_at", Moment),
    sa.Column("created_at", Moment, nullable=False),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id"), primary_key=True),
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("generation", sa.BigInteger, nullable=False),
    sa.Column("secret_digest", sa.LargeBinary(32), nullable=False),
    sa.Column("rotated_at", Moment, nullable=False),
    sa.Column("repeated_at", Moment),
    sa.Column("retry_digests", sa.String(128), nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("auth_time", Moment, nullable=False),
    sa.Column("last_seen_at", Moment, nullable=False),
    sa.Column("idle_timeout", sa.Integer, nullable=False),
    sa.Column("expires_at", Moment, nullable=False, index=True),
    sa.Column("revoked_at", Moment, index=True),
    sa.Column("revoke_reason", sa.String(32)),
    sa.Column("ip", sa.String(45)),
    sa.Column("user_agent", sa.String(512)),
    sa.Column("device_name", sa.String(100)),
    sa.Column("amr", Texts, nullable=False),
    sa.Column("transport", sa.String(8), nullable=False),
    sa.Column("remember", sa.Boolean, nullable=False),
    postgresql_with={"fillfactor": 90},  # room for HOT updates, which change no index
)

session_data = sa.Table(
    "session_data",
    metadata,
    sa.Column("user_id", sa.Uuid, primary_key=True),
    sa.Column("session_id", sa.Uuid, primary_key=True),
    sa.Column("data", Json, nullable=False),
    sa.ForeignKeyConstraint(
        ["user_id", "session_id"], ["sessions.user_id", "sessions.id"], ondelete="CASCADE"
    ),
)

signing_keys = sa.Table(
    "signing_keys",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("algorithm", sa.String(8), nullable=False),
    sa.Column("state", sa.String(8), nullable=False),
    sa.Column("public_jwk", Json, nullable=False),
    sa.Column("private_key", sa.LargeBinary, nullable=False),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("state_since", Moment, nullable=False),
    sa.Index(
        "uq_signing_keys_active",
        "state",
        unique=True,
        sqlite_where=sa.text("state = 'active'"),
        postgresql_where=sa.text("state = 'active'"),
    ),
    sa.Index(
        "uq_signing_keys_next",
        "state",
        unique=True,
        sqlite_where=sa.text("state = 'next'"),
        postgresql_where=sa.text("state = 'next'"),
    ),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("at", Moment, nullable=False),
    sa.Column("kind", sa.String(40), nullable=False),
    sa.Column("user_id", sa.Uuid),
    sa.Column("session_id", sa.Uuid),
    sa.Column("ip", sa.String(45)),
    sa.Column("details", Json, nullable=False),
    sa.Index(None, "user_id", "id"),
)

revocation_marks = sa.Table(
    "revocation_marks",
    metadata,
    sa.Column("up_to", sa.Uuid, primary_key=True),
    sa.Column("at", Moment, nullable=False),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("finished_at", Moment),
)

service_tokens = sa.Table(
    "service_tokens",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.String(100), nullable=False),
    sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
    sa.Column("created_at", Moment, nullable=False),
    sa.Column("revoked_at", Moment),
    sa.Index(
        "uq_service_tokens_living_name",
        "name",
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    ),
)

password_resets = sa.Table(
    "password_resets",
    metadata,
    sa.Column("token_digest", sa.LargeBinary(32), primary_key=True),
    sa.Column("user_id", sa.Uuid, sa.ForeignKey("users.id"), nullable=False, index=True),
    sa.Column("expires_at", Moment, nullable=False, index=True),
)

password_tries = sa.Table(
    "password_tries",
    metadata,
    sa.Column("bucket", sa.LargeBinary(32), primary_key=True),
    sa.Column("user_id", sa.Uuid),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("ends_at", Moment, index=True),
    sa.Index(None, "user_id", "bucket"),
)


def evaluated_once(chosen: sa.Select[Any]) -> sa.Select[Any]:
    """Return a query with a LIMIT for use in a DELETE or an UPDATE, which then runs it only once.

    Without the common table expression, PostgreSQL may run it again for each row (a nested loop). It skips
    rows that the statement has changed already, so the LIMIT would not hold. Count the rows with RETURNING,
    because Python's sqlite3 has a `rowcount` of -1 for a statement that begins with WITH.
    """
    once = chosen.cte("chosen")
    return sa.select(*once.c)
