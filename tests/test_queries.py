"""Every query of the storage uses an index, because a table scan gets slower as the table grows."""

import inspect
import operator
from dataclasses import replace
from datetime import timedelta

import pytest
import sqlalchemy as sa

from sessionapi import audit, ids
from sessionapi.models import (
    Attempt,
    Client,
    Decision,
    FailureCounter,
    FailureCounters,
    RevocationMark,
    ServiceToken,
)
from sessionapi.storage import Transaction
from sessionapi.storage.session_batches import Rotation
from sessionapi.tokens.refresh_token import RefreshToken
from tests.support.app import Running

SMALL = ("signing_keys", "service_tokens", "revocation_marks", "greatest_mark", "chosen")
"""Tables of a handful of rows, and the rows of one batch (`evaluated_once`), which are read whole."""


BUCKETS = FailureCounters(
    "account", FailureCounter(bytes(32), 10, timedelta(60)), FailureCounter(b"x" * 32, 100, None)
)

INDEXES_ONLY = "enable_seqscan", "enable_sort", "enable_incremental_sort", "enable_bitmapscan"
"""Plans that PostgreSQL prefers for tables as small as these. Without them it uses an index if it can."""


async def plan_of(tx: Transaction, statement: str, parameters: tuple) -> list[str]:
    """Return the steps of a query's plan, with SQLite's words for a table scan and for sorted rows."""
    if tx.connection.dialect.name == "sqlite":
        rows = await tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return [row[3] for row in rows]
    for way in INDEXES_ONLY:
        await tx.connection.exec_driver_sql(f"SET LOCAL {way} = off")
    rows = await tx.connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
    steps = [row[0].strip().removeprefix("->").strip() for row in rows]
    told = [step.replace("Seq Scan on ", "SCAN ") for step in steps]
    return ["USE TEMP B-TREE FOR ORDER BY" if step.startswith(("Sort", "Incr")) else step for step in told]


def scans(statement: str, plan: list[str]) -> list[str]:
    """Return the steps of a plan that read a whole table, or sort the rows that they have read.

    The limit of sessions sorts those of one user. Refreshes write the column that it sorts by, so the column
    is in no index.
    """
    whole = [step for step in plan if step.startswith("SCAN ") and " USING " not in step]
    sorting = [step for step in plan if "USE TEMP B-TREE FOR ORDER BY" in step]
    if "ORDER BY sessions.last_seen_at" in statement:
        sorting = []
    allowed = (*SMALL, "json", "CONSTANT")
    return [step for step in whole + sorting if not step.removeprefix("SCAN ").startswith(allowed)]


@pytest.fixture
async def asked(service: Running) -> list[tuple[str, tuple]]:
    """Every statement that the methods of `Transaction` send, with its parameters."""
    await service.sign_up()
    found: list[tuple[str, tuple]] = []

    def note(connection, cursor, statement, parameters, *rest):
        found.append((statement, parameters))

    for engine in (service.container.store._writer, service.container.store._reader):
        sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
    user = await service.container.accounts.find("ada")
    async with service.container.store.begin() as tx:
        await drive(tx, service, user)
    return found


async def drive(tx: Transaction, service: Running, user) -> None:
    """Call every query of `Transaction` once. Fails if a new query is not called here."""
    now = service.clock()
    session = (await tx.sessions.active(user.id, now, 1))[0]
    token = RefreshToken(user.id, session.id, 0, b"x" * 16)
    note = Decision("repeat", 0, moves_idle_clock=True, stores_key=True, records_late_repeat=True)
    key = replace((await tx.signing_keys.all())[0], id=ids.new_id(), state="next")
    service_token = ServiceToken(ids.new_id(), "shop", bytes(32), now)
    where = (user.id, session.id)
    mark = RevocationMark(ids.last_id_at(now), now, "revoked_by_admin")
    calls = {
        "users.insert": (replace(user, id=ids.new_id()), "bob"),
        "users.by_name": ("ada",),
        "users.get": (user.id,),
        "users.lock_if_unchanged": (user.id, 0),
        "users.lock_all": (),
        "users.bump_credential_version": (user.id,),
        "users.change": (user.id,),
        "users.lock": ({user.id, ids.new_id()},),
        "users.page": (10, user.id),
        "users.upgrade_hash": (user.id, "a", "b"),
        "password_resets.insert": (user.id, bytes(32), now),
        "password_resets.user_id": (bytes(32), now),
        "password_resets.use": (bytes(32), now),
        "password_resets.delete": (user.id,),
        "password_resets.purge": (now,),
        "users.purge": ([user.id],),
        "login_attempts.reserve": (BUCKETS, user.id, now),
        "login_attempts.expires_at": (bytes(32),),
        "login_attempts.rewrite": (BUCKETS,),
        "login_attempts.full": ([bytes(32)], 100),
        "login_attempts.clear": (BUCKETS,),
        "login_attempts.clear_of_user": (user.id,),
        "login_attempts.purge": (now, 500),
        "sessions.insert": (replace(session, id=ids.new_id()),),
        "sessions.get": where,
        "sessions.get_with_user": where,
        "sessions.secret_matches": (*where, token.secret_digest),
        "sessions.note_refresh": (session, Attempt(0, "d" * 32), note, now),
        "sessions.replace_secret": (*where, ids.digest(b"x"), now),
        "sessions.name_device": (*where, "laptop"),
        "sessions.active": (user.id, now, 10, session.id),
        "sessions.active_ids": (user.id, now),
        "sessions.least_recently_seen": (user.id, now, 5, session.id),
        "session_batches.read": ([where] * 3,),
        "commit_asynchronously": (),
        "session_batches.rotate": ([Rotation(where, 0, bytes(32), now, now, True, None, None)] * 3,),
        "sessions.revoke": (user.id, [session.id], "logout", now),
        "sessions.revoked_since": (now - timedelta(seconds=315),),
        "sessions.data": where,
        "sessions.put_data": (*where, {}),
        "all_sessions.purge": (now - timedelta(days=7), 500),
        "marks.all": (),
        "marks.insert": (mark,),
        "marks.end_sessions": (mark, now, 500),
        "marks.count_sessions": (mark,),
        "marks.finish": (mark.up_to, now),
        "marks.delete": ([mark],),
        "now": (),
        "signing_keys.all": (),
        "signing_keys.insert": (key,),
        "signing_keys.retire_active": (now,),
        "signing_keys.activate": (key.id, now),
        "signing_keys.drop": (key.id, now),
        "signing_keys.reseal": (key, b"x"),
        "signing_keys.delete_retired": (now,),
        "service_tokens.insert": (service_token,),
        "service_tokens.all": (),
        "service_tokens.by_digest": (bytes(32),),
        "service_tokens.revoke": ("shop", now),
        "events.add": (audit.event("user.created", now, client=Client()),),
        "events.page": (10, ids.new_id(), user.id),
    }
    methods = {
        *(name for name, _ in coroutines(tx)),
        *(f"{kind}.{name}" for kind, queries in vars(tx).items() for name, _ in coroutines(queries)),
    }
    assert methods - ELSEWHERE == calls.keys()
    for name, arguments in calls.items():
        columns = {"email": None} if name == "users.change" else {}
        await operator.attrgetter(name)(tx)(*arguments, **columns)


def coroutines(queries: object) -> list[tuple[str, object]]:
    """Return the queries of an object of ours, and none for the connection, which is SQLAlchemy's."""
    ours = type(queries).__module__.startswith("sessionapi.")
    found = inspect.getmembers(queries, inspect.iscoroutinefunction) if ours else []
    return [(name, method) for name, method in found if not name.startswith("_")]


ELSEWHERE = {
    "all_sessions.active",
    "all_sessions.owners_of_active",
    "marks.newest_session_id",
}
"""Tested with separate plans in test_cli_sessions.py, because a command that ends all sessions reads whole
tables.
"""


async def test_no_query_scans_a_table_or_sorts_what_it_read(service: Running, asked):
    """Fails without one of the indexes, e.g. that of sessions.revoked_at."""
    assert len({statement for statement, _ in asked}) > 40
    wrong = {}
    async with service.container.store.begin() as tx:
        for statement, parameters in asked:
            if statement.startswith(("SELECT", "UPDATE", "DELETE", "WITH")):
                flat = parameters[0] if isinstance(parameters, list) else parameters
                if found := scans(statement, await plan_of(tx, statement, flat)):
                    wrong[statement] = found
    assert wrong == {}


@pytest.mark.engines("sqlite")
async def test_a_batch_finds_its_sessions_by_their_keys(service: Running, asked):
    """Fails without `hide_from_planner` in session_batches._rotate: it then reads all active sessions."""
    batched = [(text, values) for text, values in asked if "json_each" in text]
    assert len(batched) == 2
    async with service.container.store.read() as tx:
        for statement, parameters in batched:
            rows = await tx.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found = [row[3] for row in rows if " sessions " in row[3]]
            assert found == ["SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (user_id=? AND id=?)"]
