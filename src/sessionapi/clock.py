"""The only place that reads the date and time. Other code, except the log, receives a `Clock`."""

from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""A function that returns the current time as an aware datetime in UTC."""


def system_clock() -> datetime:
    """Return the host's time. `StateSync` compares it with the database's time (design 4.4)."""
    return datetime.now(UTC)


def whole_millisecond(moment: datetime) -> datetime:
    """Round a time down to a millisecond. A session that ends alone ends at such a time; no mark has one."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)
