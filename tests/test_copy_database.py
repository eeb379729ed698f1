"""`sessionapi copy-database`: a copy is complete or absent, it is verified, and no user is logged out."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import sqlalchemy as sa

from sessionapi import ids
from sessionapi.clock import system_clock
from sessionapi.errors import Conflict
from sessionapi.storage import Store, migrations
from sessionapi.storage.database_copy import TableDigest, copy
from sessionapi.storage.database_url import Options
from sessionapi.storage.tables import metadata, service_tokens, session_data, sessions, users
from tests.support.api_client import bearer, refusal
from tests.support.commands import Commands, talk
from tests.support.postgres import Cluster, execute
from tests.support.server import serving
from tests.support.settings import SERVER_SECRET, environment
from tests.support.waiting import PATIENCE

PROVE = "SESSIONAPI_PROVE" in os.environ
USERS = 100_000 if PROVE else 500
PER_USER = 3
HELD = 7
"""The number of the PostgreSQL lock with which a test halts a copy."""
HOLD_UP = """
create function hold_up() returns trigger as $$ begin
  if new.id = '{at}' then perform pg_advisory_xact_lock(7); end if;
  return new;
end $$ language plpgsql;
create trigger hold_up before insert on sessions for each row execute function hold_up();
"""
SPOIL = """
create function spoil() returns trigger as $$ begin {change}; return new; end $$ language plpgsql;
create trigger spoil before insert on users for each row execute function spoil();
"""
EMPTY: dict[str, Any] = {"roles": [], "claims": {}, "preferences": {}}

pytestmark = pytest.mark.server


@dataclass
class Target:
    """An empty database on PostgreSQL."""

    url: str

    async def run(self, statement: str) -> list[tuple]:
        connection = await asyncpg.connect(self.url)
        try:
            return [tuple(row) for row in await connection.fetch(statement)]
        finally:
            await connection.close()

    @asynccontextmanager
    async def held_up(self, at: str) -> AsyncIterator[None]:
        """Halt every copy at the session of this id until the block ends."""
        connection = await asyncpg.connect(self.url)
        await connection.execute(HOLD_UP.format(at=at))
        await connection.execute(f"select pg_advisory_lock({HELD})")
        try:
            yield
        finally:
            await connection.execute(f"select pg_advisory_unlock({HELD})")
            await connection.close()

    async def filled(self) -> list[str]:
        """Return the tables that have rows."""
        return [name for name in metadata.tables if await self.run(f"select 1 from {name} limit 1")]

    async def someone_waits(self) -> None:
        waiting = f"select 1 from pg_locks where locktype = 'advisory' and objid = {HELD} and not granted"
        deadline = time.monotonic() + 240
        while not await self.run(waiting):
            assert time.monotonic() < deadline, "no copy came"


@pytest.fixture
async def target(cluster: Cluster) -> Target:
    made = Target(cluster.create(f"copy{os.urandom(4).hex()}"))
    await migrations.migrate(made.url)
    return made


def a_user(number: int, **more: Any) -> dict[str, Any]:
    name = f"user{number}"
    own = {"username": name, "username_key": name, "email": f"{name}@example.com", "credential_version": 0}
    return {"id": ids.new_id(), "created_at": system_clock(), **own, **EMPTY, **more}


def a_session(user: dict[str, Any]) -> dict[str, Any]:
    now = system_clock()
    moments = ("rotated_at", "created_at", "auth_time", "last_seen_at")
    return {
        "user_id": user["id"],
        "id": ids.new_id(),
        "generation": 0,
        "secret_digest": os.urandom(32),
        "retry_digests": "",
        "idle_timeout": 604_800,
        "expires_at": now + timedelta(days=30),
        "amr": ["pwd"],
        "transport": "body",
        "remember": True,
        **dict.fromkeys(moments, now),
    }


def fill(data: Path, count: int) -> list[str]:
    """Add users with sessions, and return the ids of the sessions in the order in which they are copied."""
    made = [a_user(number) for number in range(count)]
    theirs = [a_session(user) for user in made for _ in range(PER_USER)]
    engine = sa.create_engine(f"sqlite:///{data}/sessionapi.db")
    with engine.begin() as database:
        database.execute(sa.insert(users), made)
        database.execute(sa.insert(sessions), theirs)
    engine.dispose()
    return [str(each["id"]) for each in sorted(theirs, key=lambda each: (each["user_id"], each["id"]))]


def start_copy(data: Path, target: Target) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sessionapi", "copy-database", "--to", target.url, "--json"],
        env=environment(data),
        cwd=data.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def copied(data: Path, target: Target) -> dict[str, int]:
    """Run a copy to its end, and return the rows of each table."""
    copying = start_copy(data, target)
    out, said = copying.communicate(timeout=240)
    assert copying.returncode == 0, said
    assert "Both databases have the same content" in said
    assert "\n  SESSIONAPI_DATABASE_URL=" in said
    assert str(data / "secret") in said
    return {each["table"]: each["rows"] for each in map(json.loads, out.splitlines())}


@pytest.mark.prove
@pytest.mark.timeout(900)
async def test_a_copy_killed_in_its_middle_leaves_nothing_and_the_next_one_logs_nobody_out(
    tmp_path: Path, target: Target
):
    """Fails if a page is committed before the others."""
    data = tmp_path / "var"
    with serving(data) as server:
        ada, bob = server.sign_up("ada"), server.sign_up("bob")
        assert server.post("/logout", refresh_token=bob["refresh_token"]).status_code == 204
        jwks = httpx.get(f"{server.url}/.well-known/jwks.json").json()
        made = fill(data, USERS)
        server.stop()
    async with target.held_up(at=made[len(made) * 3 // 4]):
        copying = start_copy(data, target)
        await target.someone_waits()
        copying.kill()
        copying.communicate()
    assert await target.filled() == []
    moved = {"database_url": target.url, "secret": (data / "secret").read_text().strip()}
    began = time.monotonic()
    counts = copied(data, target)
    took = time.monotonic() - began
    assert (counts["users"], counts["sessions"]) == (USERS + 2, USERS * PER_USER + 2)
    assert (await target.run("select count(*) from users")) == [(USERS + 2,)]
    with serving(tmp_path / "new", **moved) as server:
        assert httpx.get(f"{server.url}/.well-known/jwks.json").json() == jwks
        renewed = server.refresh(ada)
        assert renewed.json()["session_id"] == ada["session_id"]
        assert httpx.get(f"{server.url}/protected", headers=bearer(renewed.json())).status_code == 200
        assert refusal(server.refresh(bob)) == (401, "session_revoked", "logout")
        assert server.log_in("bob")
    print(  # noqa: T201 - measured figures
        f"{counts['users']} users, {counts['sessions']} sessions: killed at three quarters of them, "
        f"the second run took {took:.1f} s with its comparison, and old tokens work"
    )


async def test_a_copy_beside_a_running_service_says_that_it_is_none_and_the_next_one_is(
    tmp_path: Path, target: Target
):
    """Fails if the comparison reads the snapshot that was copied."""
    data = tmp_path / "var"
    with serving(data) as server:
        ada = server.sign_up("ada")
        async with target.held_up(at=fill(data, 3)[0]):
            copying = start_copy(data, target)
            await target.someone_waits()
            late = server.sign_up("late")
            assert server.post("/logout", refresh_token=ada["refresh_token"]).status_code == 204
        said = copying.communicate(timeout=60)[1]
        assert copying.returncode == 1
        assert "is not the same in both databases" in said
        assert "If the service was running, stop it. Then run this again" in said
        assert await target.filled() == []
    assert copied(data, target)["users"] == 5
    moved = {"database_url": target.url, "secret": (data / "secret").read_text().strip()}
    with serving(tmp_path / "new", **moved) as server:
        assert refusal(server.refresh(ada)) == (401, "session_revoked", "logout")
        assert server.refresh(late).status_code == 200


async def test_values_come_back_the_same_through_both_engines(tmp_path: Path, target: Target):
    """Fails without `_plain`: PostgreSQL writes 1e20 with all its digits, and orders fields differently."""
    odd = {"é\u2028": [1e20, 1.0, -0.0, 1e-7, 10**30, None, True], "a": {"z": "😀", "b": ""}}
    now = system_clock()
    token = {"id": ids.new_id(), "name": "Ä", "digest": bytes(range(32)), "created_at": now}
    user = a_user(1, preferences=odd, claims=odd, disabled_at=now)
    theirs = [a_session(user), a_session(user)]
    data = {"user_id": user["id"], "session_id": theirs[1]["id"], "data": odd}
    first, last = Store(f"sqlite:///{tmp_path}/a.db"), Store(f"sqlite:///{tmp_path}/b.db")
    middle = Store(target.url, Options(timeout=PATIENCE))
    for name in "ab":
        await migrations.migrate(f"sqlite:///{tmp_path}/{name}.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.begin() as database:
        for table, rows in (
            (users, [user]),
            (service_tokens, [token]),
            (sessions, theirs),
            (session_data, [data]),
        ):
            database.execute(sa.insert(table), rows)
    there = await copied_stores(first, middle)
    back = await copied_stores(middle, last)
    assert there == back
    counts = {each.table: each.rows for each in back if each.rows}
    assert counts == {"users": 1, "service_tokens": 1, "sessions": 2, "session_data": 1}
    with sa.create_engine(f"sqlite:///{tmp_path}/b.db").connect() as database:
        assert database.execute(sa.select(users.c.preferences)).scalar() == odd
        assert database.execute(sa.select(service_tokens.c.digest)).scalar() == bytes(range(32))
        assert database.execute(sa.select(session_data.c.data)).scalar() == odd
    engine.dispose()


async def copied_stores(source: Store, target: Store) -> list[TableDigest]:
    try:
        return await copy(source, target, lambda *_: None)
    finally:
        await source.close()
        await target.close()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("new.email := 'x'", "users is not the same in both databases: 1 rows here, 1 there"),
        ("new.username := repeat('x', 200)", "refuses a row of users .*too long"),
    ],
    ids=["changed", "refused"],
)
async def test_a_row_that_arrives_changed_or_is_refused_is_found(
    tmp_path: Path, target: Target, change: str, message: str
):
    """Fails if only counts are compared, because they are right."""
    execute(target.url, SPOIL.format(change=change))
    url = f"sqlite:///{tmp_path}/a.db"
    await migrations.migrate(url)
    fill_one = sa.create_engine(url)
    with fill_one.begin() as database:
        database.execute(sa.insert(users), [a_user(1)])
    fill_one.dispose()
    with pytest.raises(Conflict, match=message):
        await copied_stores(Store(url), Store(target.url, Options(timeout=PATIENCE)))
    assert await target.filled() == []


@pytest.mark.engines("sqlite")
async def test_a_database_that_holds_other_data_is_left_alone(commands: Commands, target: Target):
    await target.run("insert into password_tries (bucket, failures) values ('x', 1)")
    await commands.beside("keys", "list")
    said = await commands.beside("copy-database", "--to", target.url)
    assert (said.exit_code, said.stdout) == (1, "")
    assert "contains data (1 rows of password_tries)" in said.stderr
    assert await target.run("select count(*) from signing_keys") == [(0,)]
    assert await target.run("select failures from password_tries") == [(1,)]


@pytest.mark.engines("sqlite")
async def test_a_newer_schema_is_not_copied_from_or_to(commands: Commands, target: Target):
    """Fails without copy_database._require_own_schema: the data of a newer version would be left behind."""
    await commands.beside("keys", "list")
    await target.run("update alembic_version set version_num = '9000'")
    said = await commands.beside("copy-database", "--to", target.url)
    assert (said.exit_code, said.stdout) == (1, "")
    assert "has schema 9000, from a newer version of sessionapi: copy it with that version" in said.stderr
    assert await target.run("select count(*) from signing_keys") == [(0,)]


@pytest.mark.engines("sqlite")
def test_what_can_not_be_copied_says_why(commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    to = ("copy-database", "--to", f"sqlite:///{tmp_path}/b.db")
    assert "No database found at" in commands.refused(*to)
    assert not commands.data.exists()
    commands("keys", "list")
    assert "must begin with sqlite:/// or postgresql://" in commands.refused(*to[:2], "mysql://x/y")
    assert "contains data" in commands.refused(*to[:2], f"sqlite:///{commands.data}/sessionapi.db")
    monkeypatch.setenv("SESSIONAPI_SECRET", SERVER_SECRET + " of somebody else")
    assert "does not open the key ring" in commands.refused(*to)
    assert not (tmp_path / "b.db").exists()


def test_a_terminal_shows_how_far_it_is(tmp_path: Path):
    data = tmp_path / "var"
    assert talk(data, "keys", "list")[0] == 0
    status, said = talk(data, "copy-database", "--to", f"sqlite:///{tmp_path}/b.db")
    assert status == 0, said
    assert "━" in said
    assert f"{2}/{2}" in said
    assert metadata.tables.keys() <= set(said.split())
