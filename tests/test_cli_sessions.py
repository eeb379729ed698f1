"""`sessionapi sessions`: the commands end the selected sessions, in the same way as over HTTP."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import sqlalchemy as sa

from sessionapi import ids
from sessionapi.clock import system_clock
from sessionapi.models import Client
from sessionapi.sessions.bulk import AllSessions
from sessionapi.sessions.lifecycle import Device
from sessionapi.sessions.marks import Marks
from sessionapi.storage.tables import users
from tests.support.app import Running, running
from tests.support.clock import FakeClock
from tests.support.commands import Commands


@pytest.fixture
async def beside(commands: Commands, make_settings) -> AsyncIterator[Running]:
    """The app in this process, on the folder of the commands. Its clock starts at the time of theirs."""
    settings = make_settings(revocation_poll=10)  # so that PostgreSQL's clock is not compared during the test
    async with running(settings, FakeClock(system_clock())) as it:
        yield it


async def is_alive(service: Running, tokens: dict) -> bool:
    return (await service.refresh(tokens)).status_code == 200


async def listed(commands: Commands, *arguments: str) -> list[str]:
    done = await commands.beside("sessions", "list", "--json", *arguments)
    return [json.loads(line)["id"] for line in done.stdout.splitlines()]


async def test_sessions_are_listed_the_newest_first_or_user_by_user(commands: Commands, beside: Running):
    ada = [await beside.sign_up("ada"), await beside.log_in("ada")]
    bob = [await beside.sign_up("bob"), await beside.log_in("bob")]
    adas, bobs = ([each["session_id"] for each in tokens] for tokens in (ada, bob))
    assert await listed(commands, "--user", "ada") == adas[::-1]
    assert await listed(commands) == adas + bobs
    assert await listed(commands, "--limit", "3") == [*adas, bobs[0]]
    await beside.client.post("/logout", json={"refresh_token": ada[0]["refresh_token"]})
    assert await listed(commands) == [adas[1], *bobs]


async def test_everybodys_sessions_are_listed_past_a_page(commands: Commands, beside: Running):
    first = await beside.sign_up("ada")
    user = await beside.container.accounts.find("ada")
    async with beside.container.store.begin() as tx:
        for _ in range(99):
            await beside.container.sessions.start(tx, user, Device(Client()), beside.clock())
    await beside.sign_up("bob")
    everybody = await listed(commands, "--limit", "1000")
    assert (len(everybody), everybody[0], len(set(everybody))) == (101, first["session_id"], 101)


async def test_one_session_ends_by_its_id_and_its_user(commands: Commands, beside: Running):
    ended, stays = await beside.sign_up("ada"), await beside.log_in("ada")
    done = await commands.beside("sessions", "revoke", ended["session_id"], "--user", "ada")
    assert (done.exit_code, done.stdout) == (0, "1\n")
    answer = await beside.refresh(ended)
    assert (answer.json()["code"], answer.json()["reason"]) == ("session_revoked", "revoked_by_admin")
    assert await is_alive(beside, stays)


async def test_an_id_of_nobody_of_another_or_of_an_ended_session_is_told_alike(
    commands: Commands, beside: Running
):
    bobs = (await beside.sign_up("bob"))["session_id"]
    ended = await beside.sign_up("ada")
    await beside.client.post("/logout", json={"refresh_token": ended["refresh_token"]})
    for text in (bobs, ended["session_id"], ids.public("sess", ids.new_id()), "sess_nonsense", ""):
        done = await commands.beside("sessions", "revoke", text, "--user", "ada")
        assert (done.exit_code, done.stderr) == (1, f"sessionapi: ada has no active session {text}.\n")
    assert await listed(commands) == [bobs]


async def test_a_users_sessions_end_and_others_stay(commands: Commands, beside: Running):
    ada, bob = await beside.sign_up("ada"), await beside.sign_up("bob")
    await beside.log_in("ada")
    done = await commands.beside("sessions", "revoke", "--user", ada["user"]["id"])
    assert (done.exit_code, done.stdout) == (0, "2\n")
    assert (await is_alive(beside, ada), await is_alive(beside, bob)) == (False, True)


@pytest.mark.engines("sqlite")  # the clock of PostgreSQL can't be two days behind
@pytest.mark.parametrize("span", ["2d", "48h", "2880m", "172800s", "172800"])
async def test_only_what_began_longer_ago_than_the_span_ends(commands: Commands, make_settings, span):
    clock = FakeClock(system_clock() - timedelta(days=2, minutes=5))
    async with running(make_settings(), clock) as service:
        old = [await service.sign_up("ada"), await service.sign_up("bob")]
        clock.move(600)
        young = await service.log_in("ada")
        done = await commands.beside("sessions", "revoke", "--older-than", span)
        assert (done.exit_code, done.stdout) == (0, "2\n")
        assert [await is_alive(service, each) for each in [*old, young]] == [False, False, True]


async def test_all_ends_every_session_with_an_audit_row_each(commands: Commands, beside: Running):
    """Fails if owners_of_active leaves out disabled users."""
    sessions = [await beside.sign_up("ada"), await beside.log_in("ada"), await beside.sign_up("bob")]
    async with beside.container.store.begin() as tx:  # only a restored row can be like this
        await tx.connection.execute(sa.update(users).values(disabled_at=beside.clock()))
    done = await commands.beside("sessions", "revoke", "--all")
    assert (done.exit_code, done.stdout) == (0, "3\n")
    assert beside.rows("select count(*) from sessions where revoke_reason = 'revoked_by_admin'") == [(3,)]
    assert await listed(commands) == []
    told = [
        json.loads(line)
        for line in (await commands.beside("audit", "--json", "--limit", "3")).stdout.splitlines()
    ]
    assert {each["session_id"] for each in told} == {each["session_id"] for each in sessions}
    assert {(each["kind"], each["details"]["reason"]) for each in told} == {
        ("session.ended", "revoked_by_admin")
    }
    assert (await commands.beside("sessions", "revoke", "--all")).stdout == "0\n"


@pytest.mark.parametrize("older_than", [None, timedelta(0)])
async def test_all_goes_on_behind_a_batch(beside: Running, older_than):
    """Fails without the next batch in AllSessions.revoke."""
    for number in range(5):
        await beside.sign_up(f"u{number}")
        await beside.log_in(f"u{number}")
    beside.clock.move(1)
    container = beside.container
    marks = Marks(container.store, container.revocations, container.clock, batch=2)
    all_sessions = AllSessions(container.store, container.sessions, marks, container.clock, batch=2)
    assert await all_sessions.revoke("revoked_by_admin", older_than) == 10
    assert beside.rows("select count(*) from sessions where revoked_at is null") == [(0,)]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--all", "--user", "ada"),
        ("--all", "--older-than", "1d"),
        ("--user", "ada", "--older-than", "1d"),
        ("sess_1", "--all"),
        ("sess_1", "--user", "ada", "--all"),
        ("sess_1", "--older-than", "1d"),
    ],
)
def test_exactly_one_choice_is_taken(commands: Commands, arguments):
    said = commands.refused("sessions", "revoke", *arguments)
    assert said == "Give exactly one: ID with --user, --user alone, --all or --older-than."


def test_an_id_alone_is_asked_for_its_user(commands: Commands):
    said = commands.refused("sessions", "revoke", "sess_1")
    assert said == "Give the user of session sess_1 with --user NAME."


@pytest.mark.parametrize(
    "span", ["", "d", "1w", "-1d", "1.5h", "1 d", "٣d", "36501d", "9" * 9 + "d", "9" * 10]
)
def test_a_span_that_is_none_is_refused(commands: Commands, span):
    said = commands.refused("sessions", "revoke", f"--older-than={span}")
    assert (
        said == "SPAN must be a number of seconds, or a number with a unit (30d, 12h, 90m), at most 36500d."
    )


@pytest.mark.engines("sqlite")
async def test_a_page_of_everybodys_sessions_is_read_in_the_order_of_the_key(beside: Running):
    """Fails without the CASE in storage.sessions.hide_from_planner: all rows would be sorted each time."""
    plans = []
    async with beside.container.store.read() as tx:
        connection = (await tx.connection.get_raw_connection()).driver_connection

        def explain(_connection, _cursor, statement, parameters, *_: object) -> None:
            plans.append((f"EXPLAIN QUERY PLAN {statement}", parameters))

        sa.event.listen(tx.connection.sync_connection, "before_cursor_execute", explain)
        await tx.all_sessions.active(beside.clock(), 10)
        await tx.all_sessions.owners_of_active(beside.clock(), 10, ids.new_id(), beside.clock())
        steps = [[row[3] for row in await connection.execute_fetchall(*plan)][:-4] for plan in plans]
        mark = [row[3] for row in await connection.execute_fetchall(*plans[0])][-4:]
    key = "SEARCH sessions USING INDEX sqlite_autoindex_sessions_1"
    assert steps == [[f"{key} ((user_id,id)>(?,?))"], [f"{key} (user_id>?)"]]
    assert (mark[0], mark[-1]) == ("SCALAR SUBQUERY 2", "SCAN greatest_mark")  # one row for each statement
