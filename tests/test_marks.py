"""Ending all sessions with one mark: which sessions it ends, in which processes, and at what cost."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from benchmarks import fill as filling
from sessionapi import ids
from sessionapi.clock import system_clock
from sessionapi.models import RevocationMark, SessionKey
from sessionapi.settings import Settings
from sessionapi.storage import tables
from sessionapi.storage.marks import FIRST_KEY
from tests.support.api_client import bearer, refusal
from tests.support.app import Running, running
from tests.support.clock import FakeClock
from tests.support.database import rows
from tests.support.server import serving
from tests.support.settings import SERVER_SECRET, environment
from tests.support.waiting import eventually

REVOKED = (401, "session_revoked", "revoked_by_admin")
PROVE = "SESSIONAPI_PROVE" in os.environ
MANY = 1_000_000 if PROVE else 3_000


@pytest.fixture
async def fleet(make_settings) -> AsyncIterator[tuple[Running, Running]]:
    """Two processes' apps on one database; neither learns of a change unless a test lets it sync."""
    settings = make_settings(revocation_poll=10)
    clock = FakeClock(system_clock())
    async with running(settings, clock) as one, running(settings, clock) as two:
        yield one, two


async def end_all(service: Running, older_than: timedelta | None = None) -> int:
    return await service.container.all_sessions.revoke("revoked_by_admin", older_than)


async def only_mark(service: Running) -> None:
    """Do the first step of the command, as if it was killed then: no row is written."""
    await service.container.marks.end_all("revoked_by_admin")


async def test_a_mark_ends_all_sessions_in_every_process_and_a_login_after_it_works(fleet):
    """Fails without the mark in Revocations.reason, in storage.sessions.SESSION or in active_at."""
    one, two = fleet
    old = [await one.sign_up("ada"), await one.log_in("ada"), await two.sign_up("bob")]
    await only_mark(one)
    for each in old:
        for service in fleet:
            assert refusal(await service.refresh(each)) == REVOKED
        assert refusal(await one.get("/protected", each)) == REVOKED
    new = [await two.log_in("ada"), await one.log_in("bob")]
    await two.container.state_sync.sync()
    assert [refusal(await two.get("/protected", each)) for each in old] == [REVOKED] * 3
    for each in new:
        for service in fleet:
            assert (await service.get("/protected", each)).status_code == 200
            assert (await service.refresh(each)).status_code == 200
    assert one.rows("select count(*) from sessions where revoked_at is not null") == [(0,)]


async def test_a_token_that_another_process_issues_after_the_mark_is_refused_by_its_session(fleet):
    """Fails if `iat` decided: a host whose clock is ahead renews an old session after the mark."""
    one, two = fleet
    old = await one.sign_up("ada")
    two.clock.move(2)
    late = (await two.refresh(old)).json()
    two.clock.move(-2)
    await only_mark(one)
    assert refusal(await one.get("/protected", late)) == REVOKED
    await two.container.state_sync.sync()
    assert refusal(await two.get("/protected", late)) == REVOKED


@pytest.mark.parametrize("ahead", [2, 86_400])
async def test_a_session_whose_host_was_ahead_is_ended_too_and_a_host_behind_starts_new_ones(fleet, ahead):
    """Fails without newest_session_id in Marks.end_all, or without new_id_after in SessionQueries.insert."""
    one, two = fleet
    old = await one.sign_up("ada")
    in_future = ids.last_id_at(system_clock() + timedelta(seconds=ahead))
    await give_id(one, old, in_future)
    await only_mark(one)
    assert one.rows("select count(*) from revocation_marks") == [(1,)]
    with pytest.raises(AssertionError, match="session_revoked"):
        await still_refreshes(one, in_future)
    for service in fleet:  # their clocks are behind the mark
        await service.container.state_sync.sync()
        new = await service.log_in("ada")
        assert (await service.get("/protected", new)).status_code == 200
        assert (await service.refresh(new)).status_code == 200
    await only_mark(two)
    await one.container.state_sync.sync()
    assert refusal(await one.get("/protected", new)) == REVOKED


async def give_id(service: Running, tokens: dict, session_id: UUID) -> None:
    """Give a session an id as a host creates it whose clock is ahead."""
    async with service.container.store.begin() as tx:
        user = ids.parse("user", tokens["user"]["id"])
        session = await tx.sessions.get(user, ids.parse("sess", tokens["session_id"]))
        await tx.sessions.insert(replace(session, id=session_id))


async def still_refreshes(service: Running, session_id: UUID) -> None:
    user = await service.container.accounts.find("ada")
    async with service.container.store.read() as tx:
        session = await tx.sessions.get(user.id, session_id)
    assert session.revoked_at is None, "session_revoked"


async def test_a_login_that_was_under_way_is_either_ended_or_works_everywhere(fleet):
    """Fails if one process could take the id of a session for old and another process for new."""
    one, two = fleet
    await one.sign_up("ada")

    async def log_in(service: Running) -> dict:
        return await service.log_in("ada")

    logins = [asyncio.create_task(log_in(service)) for service in (one, two) for _ in range(10)]
    await asyncio.sleep(0)
    await only_mark(one)
    tokens = [await each for each in logins]
    for service in fleet:
        await service.container.state_sync.sync()
    for each in tokens:
        answers = [await service.get("/protected", each) for service in fleet]
        refreshed = [await service.refresh(each) for service in fleet]
        assert len({answer.status_code for answer in (*answers, *refreshed)}) == 1
    after = await two.log_in("ada")
    assert [(await service.get("/protected", after)).status_code for service in fleet] == [200, 200]


async def test_every_route_of_an_old_session_refuses_it_at_once(fleet):
    """The same in a process that has not synced. Fails if a statement reads a session without `with_mark`."""
    one, two = fleet
    old = await one.sign_up("ada")
    await only_mark(one)
    answers = [
        await two.get("/sessions/current", old),
        await two.send("PATCH", "/sessions/current", old, {"data": {"a": 1}}),
        await two.send(
            "POST", "/sessions/current/reauthenticate", old, {"password": "correct horse battery"}
        ),
    ]
    assert [refusal(each) for each in answers] == [REVOKED] * 3
    assert (await two.get("/sessions", old)).json().get("items", []) == []
    assert two.rows("select count(*) from session_data") == [(0,)]


async def test_the_list_of_revocations_has_one_mark_and_its_etag_changes_with_it(fleet):
    one, two = fleet
    headers = bearer(await one.container.service_tokens.add("shop"))
    old = await one.sign_up("ada")
    before = await one.client.get("/revocations", headers=headers)
    assert "revoked_up_to" not in before.json()
    assert await end_all(one) == 1
    answers = []
    for service in fleet:
        await service.container.state_sync.sync()
        answers.append(await service.client.get("/revocations", headers=headers))
    assert answers[0].json() == answers[1].json()
    assert answers[0].headers["etag"] == answers[1].headers["etag"] != before.headers["etag"]
    body = answers[0].json()
    assert (body["revoked"], body["revoked_up_to"]["reason"]) == ([], "revoked_by_admin")
    assert old["session_id"] <= body["revoked_up_to"]["session_id"] < (await one.log_in())["session_id"]
    again = {**headers, "If-None-Match": answers[0].headers["etag"]}
    assert (await two.client.get("/revocations", headers=again)).status_code == 304


@pytest.mark.parametrize("microsecond", [0, 1, 2])
async def test_the_poll_reads_no_row_of_a_mark_and_each_one_that_ended_alone(fleet, microsecond: int):
    """Fails without `marked_at` in revoked_since, or if a session alone could have the time of a mark."""
    one, two = fleet
    one.clock.now = (one.clock.now + timedelta(seconds=1)).replace(microsecond=microsecond)
    alone = await one.sign_up("ada")
    for _ in range(5):
        await one.log_in("ada")
    await one.client.post("/logout", headers=bearer(alone))
    assert await end_all(one) == 5
    after = await one.log_in("ada")
    await one.client.post("/logout", headers=bearer(after))
    assert await end_all(two) == 0
    since = one.clock() - timedelta(seconds=315)
    async with one.container.store.read() as tx:
        marks = await tx.marks.all()
        found = await tx.sessions.revoked_since(since, [mark.at for mark in marks])
    assert {ids.public("sess", each.id) for each in found} == {alone["session_id"], after["session_id"]}
    for service in fleet:
        await service.container.state_sync.sync()
        assert set(service.container.revocations.all()) == {alone["session_id"], after["session_id"]}


async def test_rows_that_a_killed_command_has_left_are_written_by_a_server(fleet):
    """Fails without Marks.finish in Marks.tidy."""
    one, two = fleet
    old = await one.sign_up("ada")
    await one.send("PATCH", "/sessions/current", old, {"data": {"a": 1}})
    await only_mark(one)
    await two.container.marks.tidy()
    assert one.rows("select revoke_reason from sessions") == [("revoked_by_admin",)]
    assert one.rows("select count(*) from session_data") == [(0,)]
    assert one.rows("select count(*) from events where kind = 'session.ended'") == [(1,)]
    assert one.rows("select count(*) from revocation_marks where finished_at is null") == [(0,)]


async def test_old_marks_are_deleted_and_the_greatest_stays(fleet):
    one, _ = fleet
    old = await one.sign_up("ada")
    for _ in range(3):
        await end_all(one)
    one.clock.move(631)
    await one.container.marks.tidy()
    assert one.rows("select count(*) from revocation_marks") == [(1,)]
    assert refusal(await one.refresh(old)) == REVOKED


async def test_two_commands_at_once_end_each_session_once(fleet):
    one, two = fleet
    for number in range(6):
        await one.sign_up(f"u{number}")
    await asyncio.gather(end_all(one), end_all(two))
    assert one.rows("select count(*) from sessions where revoked_at is null") == [(0,)]
    assert one.rows("select count(*) from events where kind = 'session.ended'") == [(6,)]


def born(made: datetime) -> UUID:
    return ids.new_id_after(ids.last_id_before(made))


async def test_older_than_is_a_mark_too_and_what_is_younger_stays(make_settings):
    """Fails without Marks.end_older: each of the older sessions would be in the list."""
    clock = FakeClock(system_clock())
    settings = make_settings(revocation_poll=10)
    async with running(settings, clock) as service:
        key = service.container.sessions.issuer._refresh_keys[0]
        await asyncio.to_thread(filled_at, settings, key, 20, clock() - timedelta(days=3))
        young = await service.sign_up("ada")
        assert await end_all(service, timedelta(days=2)) == 20
        assert (await service.refresh(young)).status_code == 200
        await service.container.state_sync.sync()
        assert (await service.get("/protected", young)).status_code == 200
        assert service.container.revocations.all() == {}
        assert service.rows("select count(*) from sessions where revoked_at is null") == [(1,)]
        assert await end_all(service, timedelta(days=2)) == 0


def filled_at(settings: Settings, key: bytes, count: int, made: datetime) -> None:
    """Insert sessions that began at a given time, as `benchmarks.fill` does for now."""
    pairs = [filling._pair(ids.new_id(), made, None) for _ in range(count)]
    filling.insert(settings, tables.users, (filling._user_row(user) for user, _, _ in pairs))
    made_rows = ({**asdict(session), "id": born(made)} for _, session, _ in pairs)
    filling.insert(settings, tables.sessions, made_rows)


def resident(pid: int) -> int:
    """Return the resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 2**20


@pytest.mark.server
@pytest.mark.prove
@pytest.mark.timeout(3000)
def test_a_server_stays_ready_and_small_while_all_sessions_end(tmp_path: Path, database_url: str):
    """`make prove` ends a million sessions.

    Without the mark it took 914 MiB, the server was not ready, and a list of 77 MB came after 22 s.
    """
    data = tmp_path / "var"
    own = {"secret": SERVER_SECRET, "database_url": database_url, "log_level": "warning"}
    with serving(data, **own) as server:
        settings = Settings(_env_file=None, data_dir=data, database_url=database_url, secret=SERVER_SECRET)
        first = server.sign_up("ada")
        for start in range(0, MANY, 100_000):  # their records in memory would be 2 GB
            filling.fill(settings, bytes(32), min(100_000, MANY - start))
        before = resident(server.process.pid)
        made = run(data, own, "service-tokens", "add", "shop")
        headers = bearer(made.stdout.strip())
        command = subprocess.Popen(
            [sys.executable, "-m", "sessionapi", "sessions", "revoke", "--all"],
            env=environment(data, **own),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        ready, answers, largest, began = [], [], 0, time.monotonic()
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while command.poll() is None or len(ready) < 3:
                ready.append(client.get("/readyz").status_code)
                largest = max(largest, resident(command.pid) if command.poll() is None else 0)
                sent = time.monotonic()
                answers.append((client.get("/revocations", headers=headers), time.monotonic() - sent))
                time.sleep(0.2)
            took = time.monotonic() - began
            after = resident(server.process.pid)
            assert set(ready) == {200}
            assert {answer.status_code for answer, _ in answers} == {200}
            size = max(len(answer.content) for answer, _ in answers)
            slowest = max(seconds for _, seconds in answers)
            print(  # noqa: T201
                f"{MANY} sessions: server {before} -> {after} MiB, command {largest} MiB in {took:.0f} s, "
                f"/revocations {size} bytes in at most {slowest * 1000:.0f} ms, "
                f"/readyz 200 of {len(ready)}: {ready.count(200)}"
            )
            assert size < 1000
            assert after - before < 100
            printed, progress = command.communicate()
            assert printed == f"{MANY + 1}\n"
            progress = progress.count("sessions ended so far.")
            assert progress > MANY // 20_000 or not PROVE, "the server writes some of the rows itself"
            assert refusal(client.get("/protected", headers=bearer(first))) == REVOKED
        assert server.refresh(server.log_in("ada")).status_code == 200


def run(data: Path, own: dict, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sessionapi", *arguments],
        env=environment(data, **own),
        cwd=data.parent,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.mark.server
def test_a_command_that_is_killed_has_ended_all_sessions_and_the_next_one_writes_the_rest(
    tmp_path: Path, database_url: str
):
    """Fails if the rows came before the mark."""
    data = tmp_path / "var"
    own = {"secret": SERVER_SECRET, "database_url": database_url, "log_level": "warning"}
    with serving(data, **own) as server:
        settings = Settings(_env_file=None, data_dir=data, database_url=database_url, secret=SERVER_SECRET)
        tokens = server.sign_up("ada")
        filling.fill(settings, bytes(32), 5_000)
        url = settings.effective_database_url
        command = subprocess.Popen(
            [sys.executable, "-m", "sessionapi", "sessions", "revoke", "--all"],
            env=environment(data, **own),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
        )
        eventually(lambda: count(url, "revocation_marks"))
        command.send_signal(signal.SIGKILL)
        command.wait(30)
        assert refusal(server.refresh(tokens)) == REVOKED
        new = server.log_in("ada")
        run(data, own, "purge")
        assert count(url, "sessions where revoked_at is null") == 1
        assert count(url, "events where kind = 'session.ended'") == 5_001
        assert server.refresh(new).status_code == 200
        listed = run(data, own, "sessions", "list", "--json").stdout.splitlines()
        assert [json.loads(line)["id"] for line in listed] == [new["session_id"]]


def count(url: str, what: str) -> int:
    return rows(url, f"select count(*) from {what}")[0][0]


@pytest.mark.engines("postgresql")
async def test_a_batch_has_at_most_as_many_rows_as_its_limit(service: Running):
    """Fails without `evaluated_once`: in a nested loop PostgreSQL runs the subquery again for each row.

    Then a batch also has rows after the next key, and those between are skipped. 9 of 10 sessions were ended.
    """
    for number in range(5):
        await service.sign_up(f"u{number}")
        await service.log_in(f"u{number}")
    now = service.clock()
    mark = RevocationMark(ids.last_id_of_next_millisecond(ids.new_id()), now, "revoked_by_admin")
    ended: list[SessionKey] = []
    async with service.container.store.begin() as tx:
        for way in ("hashjoin", "mergejoin", "hashagg", "sort", "material"):
            await tx.connection.exec_driver_sql(f"SET LOCAL enable_{way} = off")
        while keys := await tx.marks.end_sessions(mark, now, 2, ended[-1] if ended else FIRST_KEY):
            assert len(keys) == 2
            ended += keys
    assert len(ended) == 10
