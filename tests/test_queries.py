"""Every query of the storage uses an index, because a table scan gets slower as the table grows."""

import inspect
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
from sessionapi.storage.table_copy import CopyQueries
from sessionapi.tokens import refresh_token
from sessionapi.tokens.refresh_token import RefreshToken
from tests.conftest import Running

SMALL = ("signing_keys", "service_tokens", "revocation_marks", "greatest_mark", "chosen")
"""Tables of a handful of rows, and the rows of one batch (`evaluated_once`), which are read whole."""


BUCKETS = FailureCounters(
    "account", FailureCounter(bytes(32), 10, timedelta(60)), FailureCounter(b"x" * 32, 100, None)
)

INDEXES_ONLY = "enable_seqscan", "enable_sort", "enable_incremental_sort", "enable_bitmapscan"
"""Plans that PostgreSQL prefers for tables as small as these. Without them it uses an index if it can."""


async def plan_of(tx: Transaction, statement: str, parameters: tuple) -> list[str]:
    """Return the steps of a query's plan, with SQLite's words for a table scan and for sorted rows."""
    if tx._connection.dialect.name == "sqlite":
        rows = await tx._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return [row[3] for row in rows]
    for way in INDEXES_ONLY:
        await tx._connection.exec_driver_sql(f"SET LOCAL {way} = off")
    rows = await tx._connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)
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

    for engine in (service.parts.store._writer, service.parts.store._reader):
        sa.event.listen(engine.sync_engine, "before_cursor_execute", note)
    user = await service.parts.accounts.find("ada")
    async with service.parts.store.begin() as tx:
        await drive(tx, service, user)
    return found


async def drive(tx: Transaction, service: Running, user) -> None:
    """Call every method of `Transaction` once; a new one without a call here fails."""
    now = service.clock()
    session = (await tx.living_sessions(user.id, now, 1))[0]
    token = RefreshToken(user.id, session.id, 0, b"x" * 16)
    note = Decision("repeat", 0, moves_idle_clock=True, stores_key=True, records_late_repeat=True)
    key = replace((await tx.signing_keys())[0], id=ids.new_id(), state="next")
    service_token = ServiceToken(ids.new_id(), "shop", bytes(32), now)
    where = (user.id, session.id)
    mark = RevocationMark(ids.last_id_at(now), now, "revoked_by_admin")
    calls = {
        "insert_user": (replace(user, id=ids.new_id()), "bob"),
        "user_by_name": ("ada",),
        "user": (user.id,),
        "lock_if_unchanged": (user.id, 0),
        "lock_all_users": (),
        "bump_credential_version": (user.id,),
        "change_user": (user.id,),
        "lock_users": ({user.id, ids.new_id()},),
        "all_users": (10, user.id),
        "upgrade_hash": (user.id, "a", "b"),
        "insert_password_reset": (user.id, bytes(32), now),
        "password_reset": (bytes(32), now),
        "use_password_reset": (bytes(32), now),
        "delete_password_reset": (user.id,),
        "purge_password_resets": (now,),
        "purge_users": ([user.id],),
        "reserve_attempt": (BUCKETS, user.id, now),
        "counter_expires_at": (bytes(32),),
        "rewrite_counters": (BUCKETS,),
        "full_buckets": ([bytes(32)], 100),
        "clear_counters": (BUCKETS,),
        "clear_counters_of": (user.id,),
        "purge_tries": (now, 500),
        "insert_session": (replace(session, id=ids.new_id()),),
        "session": where,
        "session_and_user": where,
        "secret_matches": (*where, token.secret_digest),
        "note_refresh": (session, Attempt(0, "d" * 32), note, now),
        "replace_secret": (*where, refresh_token.digest(b"x"), now),
        "name_device": (*where, "laptop"),
        "living_sessions": (user.id, now, 10, session.id),
        "living_ids": (user.id, now),
        "least_recently_seen": (user.id, now, 5, session.id),
        "sessions_and_users": ([where] * 3,),
        "commit_asynchronously": (),
        "rotate_all": ([Rotation(where, 0, bytes(32), now, now, True, None, None)] * 3,),
        "revoke": (user.id, [session.id], "logout", now),
        "revoked_since": (now - timedelta(seconds=315),),
        "session_data": where,
        "put_session_data": (*where, {}),
        "purge_sessions": (now - timedelta(days=7), 500),
        "revocation_marks": (),
        "insert_mark": (mark,),
        "end_marked": (mark, now, 500),
        "count_marked": (mark,),
        "finish_marks": (mark.up_to, now),
        "delete_marks": ([mark],),
        "now": (),
        "signing_keys": (),
        "insert_key": (key,),
        "retire_active_key": (now,),
        "activate_key": (key.id, now),
        "drop_key": (key.id, now),
        "reseal_key": (key, b"x"),
        "delete_retired_keys": (now,),
        "insert_service_token": (service_token,),
        "service_tokens": (),
        "service_token": (bytes(32),),
        "revoke_service_token": ("shop", now),
        "record": (audit.event("user.created", now, client=Client()),),
        "events": (10, ids.new_id(), user.id),
    }
    methods = {
        name
        for name, method in inspect.getmembers(Transaction, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert methods - ELSEWHERE == calls.keys()
    for name, arguments in calls.items():
        columns = {"email": None} if name == "change_user" else {}
        await getattr(tx, name)(*arguments, **columns)


ELSEWHERE = {
    "all_living_sessions",
    "owners_of_living",
    "newest_session_id",
    *(name for name in vars(CopyQueries) if name[0] != "_"),
}
"""Tested with separate plans in test_cli_sessions.py. A copy reads whole tables, and so does a command that
ends all sessions once.
"""


async def test_no_query_scans_a_table_or_sorts_what_it_read(service: Running, asked):
    """Fails without one of the indexes, e.g. that of sessions.revoked_at."""
    assert len({statement for statement, _ in asked}) > 40
    wrong = {}
    async with service.parts.store.begin() as tx:
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
    async with service.parts.store.read() as tx:
        for statement, parameters in batched:
            rows = await tx._connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            found = [row[3] for row in rows if " sessions " in row[3]]
            assert found == ["SEARCH sessions USING INDEX sqlite_autoindex_sessions_1 (user_id=? AND id=?)"]
