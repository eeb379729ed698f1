"""The only reader of the time. Everything else is handed a `Clock`."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Returns the present moment, aware, in UTC."""


def system_clock() -> datetime:
    """Return the host's time; the poll compares it with the database's (design 4.4)."""
    return datetime.now(UTC)
