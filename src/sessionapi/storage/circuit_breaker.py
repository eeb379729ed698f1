"""When the database is away: its driver's words turned into `Unavailable`, and who need not wait for it."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from sessionapi.errors import Unavailable

UNCONFIRMED = "The database did not confirm this in time. Look whether it was done before you repeat it."
_OF_THE_DATABASE = ("08", "25006", "40", "53", "55P03", "57", "58")
"""SQLSTATEs, or their first digits, of a server's condition; any other is a defect of ours."""

_CONTENDED = ("40P01", "40001")
"""Deadlocks and serialization failures: nothing was done, and the same may be attempted again."""
_CONTENDED_SQLITE = ("SQLITE_BUSY_SNAPSHOT", "SQLITE_BUSY_RECOVERY")
"""The same on SQLite. A plain SQLITE_BUSY has waited for `busy_timeout`; another attempt would wait again."""
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
"""A file that another program has written into."""


class Watch:
    """One transaction; `commits` from the moment when all is done but the commit."""

    commits = False


class CircuitBreaker:
    """Whether the database is away.

    While it is, one transaction at a time goes to see whether it is back, and all others are refused at
    once: else each would wait its whole time, and they would pile up.
    """

    def __init__(self) -> None:
        self._away = False
        self._tried = False
        self._detail: str | None = None

    def refuse(self) -> None:
        """Raise Unavailable if the database is away and somebody is there to see whether it is back."""
        if self._away and self._tried:
            raise Unavailable(self._detail)

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """Watch over one transaction; raises Unavailable for whatever the database does to it."""
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
    """Return whether nothing came back; an empty pool and a lock that others hold are no sign of it."""
    lost = isinstance(problem, DBAPIError) and problem.connection_invalidated
    return lost or isinstance(problem, OSError | Unavailable)


def _is_of_the_database(problem: Exception) -> bool:
    """SQLite's `locked`, `full`, `I/O error` are all operational; PostgreSQL's are told by their SQLSTATE."""
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
