"""Circuit breaker: translates driver errors into `Unavailable`, and fails fast while the database is down."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sessionapi.errors import Unavailable

UNCONFIRMED = "The database did not confirm this in time. Check whether it was done before you repeat it."
_OF_THE_DATABASE = ("08", "25006", "40", "53", "55P03", "57", "58")
"""SQLSTATEs, or their first characters, for which the server is the cause. Any other is a defect of ours."""

_CONTENDED = ("40P01", "40001")
"""Deadlocks and serialization failures. Nothing was done, so the transaction can be retried."""
_CONTENDED_SQLITE = ("SQLITE_BUSY_SNAPSHOT", "SQLITE_BUSY_RECOVERY")
"""The same on SQLite. A plain SQLITE_BUSY has already waited for `busy_timeout`; a retry would wait again."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""SQLite errors of a file that another program has written into."""


class Watch:
    """One transaction; `commits` is true once only the commit is left."""

    commits = False


class CircuitBreaker:
    """Circuit breaker of one database.

    While the circuit is open, one transaction at a time is let through as a probe, and all others are refused
    at once. Otherwise each of them would wait until its deadline, and they would pile up.
    """

    def __init__(self) -> None:
        self._away = False
        self._tried = False
        self._detail: str | None = None

    def refuse(self) -> None:
        """Raise Unavailable if the circuit is open and another transaction is already probing."""
        if self._away and self._tried:
            raise Unavailable(self._detail)

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """Guard one transaction; raises Unavailable for any failure that the database causes."""
        self.refuse()
        tries = self._tried = self._away
        watch = Watch()
        try:
            yield watch
        except Exception as problem:
            self._away |= _is_away(problem)
            self._detail = problem.detail if isinstance(problem, Unavailable) else None
            if not _is_of_the_database(problem):
                raise
            raise _refusal(problem, watch) from problem
        else:
            self._away = False
        finally:
            if tries:
                self._tried = False


def _is_away(problem: Exception) -> bool:
    """Return whether the database is down. An exhausted pool or a lock held by others does not count."""
    if isinstance(problem, Unavailable):
        return bool(problem.cause)  # one without a cause is not about the database
    lost = isinstance(problem, DBAPIError) and problem.connection_invalidated
    return lost or isinstance(problem, OSError)


def _is_of_the_database(problem: Exception) -> bool:
    """Return whether the database caused an error, as opposed to a defect of ours.

    SQLite's `locked`, `full` and `I/O error` are all operational errors; PostgreSQL's are classified by their
    SQLSTATE.
    """
    if not isinstance(problem, DBAPIError):
        return isinstance(problem, OSError | PoolTimeout)
    named = type(problem).__name__ in ("OperationalError", "InterfaceError")
    named |= getattr(problem.orig, "sqlite_errorcode", 0) & 0xFF in _DAMAGED
    return problem.connection_invalidated or named or _state(problem).startswith(_OF_THE_DATABASE)


def _state(problem: Exception) -> str:
    return getattr(getattr(problem, "orig", None), "sqlstate", None) or ""


def _is_contended(problem: Exception) -> bool:
    on_sqlite = getattr(getattr(problem, "orig", None), "sqlite_errorname", None) in _CONTENDED_SQLITE
    return on_sqlite or _state(problem) in _CONTENDED


def _refusal(problem: Exception, watch: Watch) -> Unavailable:
    refusal = Unavailable(UNCONFIRMED if watch.commits and _is_away(problem) else None)
    refusal.contended = _is_contended(problem)
    refusal.cause = (str(problem.__cause__ or problem) or type(problem).__name__).splitlines()[0]
    return refusal
