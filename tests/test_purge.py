"""Purging: ended rows are deleted when due and in batches, and active or needed rows stay."""

import asyncio
from datetime import timedelta
from uuid import UUID

from sessionapi import ids
from sessionapi.sessions.actors import OPERATOR
from sessionapi.sessions.purge import Purge, Purged
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running, running
from tests.support.clock import FakeClock
from tests.support.commands import Commands

DAY = 86_400
KEPT = 7 * DAY


async def purged(service: Running) -> Purged:
    return await service.container.purge.run()


def left(service: Running) -> set[str]:
    """Return the ids of the sessions whose rows still exist."""
    return {ids.public("sess", UUID(text)) for (text,) in service.rows("select id from sessions")}


async def test_a_revoked_session_stays_for_its_time_and_goes_then(service: Running):
    """Fails with another column than revoked_at, or without `kept`, in the purge."""
    ended, lives = await service.sign_up(), await service.log_in()
    await service.client.post("/logout", json={"refresh_token": ended["refresh_token"]})
    service.clock.move(KEPT)
    assert await purged(service) == Purged(sessions=0, users=0, password_resets=0)
    assert left(service) == {ended["session_id"], lives["session_id"]}
    service.clock.move(1)
    assert await purged(service) == Purged(sessions=1, users=0, password_resets=0)
    assert left(service) == {lives["session_id"]}


async def test_an_expired_session_stays_for_its_time_from_its_absolute_end_and_goes_then(service: Running):
    await service.sign_up(remember=False)
    service.clock.move(DAY + KEPT)
    assert (await purged(service)).sessions == 0
    service.clock.move(1)
    assert (await purged(service)).sessions == 1
    assert left(service) == set()


async def test_a_session_past_its_idle_end_waits_for_its_absolute_one(service: Running):
    tokens = await service.sign_up()
    service.clock.move(29 * DAY)
    assert (await service.refresh(tokens)).json()["reason"] == "idle"
    service.clock.move(DAY + KEPT)
    assert (await purged(service)).sessions == 0
    service.clock.move(1)
    assert (await purged(service)).sessions == 1


async def test_a_purged_session_takes_its_data_along_and_leaves_others_theirs(service: Running):
    lives = await service.sign_up("bob", remember=False)
    service.clock.move(10)
    idle = await service.sign_up("ada", remember=False)
    for tokens in (lives, idle):
        await service.send("PATCH", "/sessions/current", tokens, {"data": {"tab": "inbox"}})
    assert service.rows("select count(*) from session_data") == [(2,)]
    service.clock.move(DAY + KEPT - 5)
    assert (await purged(service)).sessions == 1
    assert left(service) == {idle["session_id"]}
    assert [
        ids.public("sess", UUID(text)) for (text,) in service.rows("select session_id from session_data")
    ] == [idle["session_id"]]


async def test_what_lives_goes_on_after_a_purge(service: Running):
    tokens = await service.sign_up()
    for _ in range(5):
        service.clock.move(6 * DAY - 60)
        assert await purged(service) == Purged(0, 0, 0)
        tokens = (await service.refresh(tokens)).json()
    assert tokens["generation"] == 5


async def test_a_purged_session_is_refused_as_an_unknown_one(service: Running):
    tokens = await service.sign_up(remember=False)
    service.clock.move(DAY + KEPT + 1)
    await purged(service)
    answer = await service.refresh(tokens)
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_refresh_token")


async def test_a_purged_session_is_never_said_to_be_ended_by_an_administrator(make_settings, clock):
    """Only its row had the reason. Fails with a reason other than `unknown` in policy.ensure_active."""
    async with running(make_settings(), clock) as service:
        tokens = await service.sign_up()
        async with running(make_settings(), clock) as other:
            await other.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})
            clock.move(1)
            assert (await Purge(other.container.store, clock, timedelta()).run()).sessions == 1
        for method in ("GET", "PATCH"):
            body = {} if method == "PATCH" else None
            answer = await service.send(method, "/sessions/current", tokens, body)
            assert refusal(answer) == (401, "session_revoked", "unknown")


def purge_in_twos(service: Running) -> Purge:
    return Purge(service.container.store, service.clock, timedelta(seconds=KEPT), batch=2)


async def seven_sessions(service: Running, clock: FakeClock) -> list[str]:
    """Return the sessions that are due to be purged, the oldest first."""
    await service.sign_up(remember=False)
    for _ in range(6):
        clock.move(1)
        await service.log_in(remember=False)
    clock.move(DAY + KEPT + 1)
    return sorted(left(service))


async def test_a_batch_takes_the_oldest_and_no_more_than_its_size(service: Running, clock: FakeClock):
    """Fails without the limit, or the order, of AllSessionQueries.purge."""
    oldest_first = await seven_sessions(service, clock)
    async with service.container.store.begin() as tx:
        assert len(await tx.all_sessions.purge(clock() - timedelta(seconds=KEPT), 2)) == 2
    assert sorted(left(service)) == oldest_first[2:]


async def test_a_purge_goes_on_until_nothing_is_due(service: Running, clock: FakeClock):
    """Fails if only one batch is deleted."""
    await seven_sessions(service, clock)
    assert await purge_in_twos(service).run() == Purged(sessions=7, users=0, password_resets=0)
    assert left(service) == set()


async def test_two_purges_at_once_delete_everything_once(service: Running, clock: FakeClock):
    await seven_sessions(service, clock)
    both = await asyncio.gather(purge_in_twos(service).run(), purge_in_twos(service).run())
    assert sum(each.sessions for each in both) == 7
    assert left(service) == set()


async def test_dead_password_resets_go_and_living_ones_stay(service: Running):
    users = [await service.sign_up(name) for name in ("ada", "bob")]
    ada, bob = (ids.parse("user", tokens["user"]["id"]) for tokens in users)
    await service.container.accounts.make_reset_token(ada)
    service.clock.move(60)
    token = await service.container.accounts.make_reset_token(bob)
    service.clock.move(30 * 60 - 60)
    assert await purged(service) == Purged(0, 0, 1)
    body = {"token": token, "new_password": "another horse battery"}
    assert (await service.client.post("/password-reset", json=body)).status_code == 204


async def test_a_deleted_user_leaves_an_emptied_row_until_the_last_session_is_purged(service: Running):
    """Fails without UserQueries.purge, or without its NOT EXISTS, because rows of sessions refer to users."""
    tokens = await service.sign_up(email="ada@example.com")
    await service.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})
    service.clock.move(60)
    tokens = await service.log_in()
    await service.container.accounts.make_reset_token(ids.parse("user", tokens["user"]["id"]))
    await service.send("DELETE", "/me", tokens)
    assert service.rows("select username, email, password_hash from users") == [("", None, None)]
    assert service.rows("select count(*) from password_resets") == [(0,)]
    service.clock.move(KEPT - 30)
    assert await purged(service) == Purged(sessions=1, users=0, password_resets=0)
    assert service.rows("select count(*) from users") == [(1,)]
    service.clock.move(60)
    assert await purged(service) == Purged(sessions=1, users=1, password_resets=0)
    assert service.rows("select count(*) from users") == [(0,)]


async def test_a_deleted_user_who_never_had_a_session_leaves_nothing_but_the_audit_log(service: Running):
    user = await service.container.accounts.add("ada", None, password=PASSWORD, hashed=None)
    await service.container.accounts.delete(user.id, OPERATOR)
    assert service.rows("select count(*) from users") == [(0,)]
    assert service.rows("select kind from events order by id") == [("user.created",), ("user.deleted",)]


async def test_a_user_without_sessions_who_was_not_deleted_stays(service: Running):
    """Fails without deleted_at in UserQueries.purge."""
    await service.sign_up(remember=False)
    service.clock.move(DAY + KEPT + 1)
    assert await purged(service) == Purged(sessions=1, users=0, password_resets=0)
    await service.log_in()


async def test_a_server_purges_by_itself_from_its_start(make_settings, clock: FakeClock):
    """Fails without the purge among the background tasks of the lifespan."""
    async with running(make_settings(), clock) as service:
        await service.sign_up(remember=False)
    clock.move(DAY + KEPT + 1)
    async with running(make_settings(), clock) as service, asyncio.timeout(30):
        while left(service):
            await asyncio.sleep(0)  # to let the server go on


def test_the_command_prints_what_it_deleted(commands: Commands, make_settings):
    async def ended_long_ago() -> None:
        clock = FakeClock()
        clock.move(-400 * DAY)
        async with running(make_settings(), clock) as service:
            tokens = await service.sign_up()
            await service.container.accounts.make_reset_token(
                (await service.container.accounts.add("bob", None, password=PASSWORD, hashed=None)).id
            )
            await service.send("DELETE", "/me", tokens)

    asyncio.run(ended_long_ago())
    done = commands("purge")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == (
        "sessions                1\ndeleted accounts        1\nexpired password resets 1\n"
    )
    assert (
        commands("purge").stdout
        == "sessions                0\ndeleted accounts        0\nexpired password resets 0\n"
    )
