"""Concurrent operations: an ending wins, the limit holds, and a token has one successor."""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from functools import partial

import bcrypt
import pytest
import sqlalchemy as sa

from sessionapi.sessions.actors import OPERATOR
from sessionapi.storage.tables import users
from tests.support.api_client import PASSWORD
from tests.support.app import Running, running

ROUNDS = 1_000 if "SESSIONAPI_PROVE" in os.environ else 15
NEW = "another good password"
pytestmark = [pytest.mark.timeout(1_800), pytest.mark.prove]  # small without SESSIONAPI_PROVE


async def test_two_hundred_refreshes_at_once_get_one_successor(make_settings, clock):
    """Fails without the generation in the condition of the rotation."""
    async with running(make_settings(refresh_grace=1, rotate_after=3), clock) as service:
        tokens = await service.sign_up()
        clock.move(3)
        answers = await asyncio.gather(*(service.refresh(tokens) for _ in range(200)))
        assert [answer.status_code for answer in answers] == [200] * 200
        assert len({answer.json()["refresh_token"] for answer in answers}) == 1
        assert service.rows("select generation, revoke_reason from sessions") == [(1, None)]


async def shuffled(dice: random.Random, *acts: Callable[[], Awaitable[object]]) -> list:
    """Run all of them concurrently, each started after a random number of iterations of the event loop."""

    async def later(act: Callable[[], Awaitable[object]], turns: int) -> object:
        for _ in range(turns):
            await asyncio.sleep(0)
        return await act()

    return await asyncio.gather(*(later(act, dice.randrange(40)) for act in acts))


async def end(service: Running, how: str, tokens: dict) -> object:
    user = await service.container.accounts.find("ada")
    if how == "logout":
        return await service.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})
    if how == "password":
        body = {"current_password": PASSWORD, "new_password": NEW}
        other = tokens["other"]
        return await service.send("POST", "/me/password", other, body)
    if how == "idle":
        return service.clock.move(8 * 86_400)
    act = {"disable": service.container.accounts.disable, "delete": service.container.accounts.delete}[how]
    return await act(user.id, OPERATOR)


def active(service: Running) -> int:
    now = int(service.clock().timestamp() * 1_000_000)
    return service.rows(
        "select count(*) from sessions where revoked_at is null and expires_at > "
        f"{now} and last_seen_at + cast(idle_timeout as bigint) * 1000000 > {now}"
    )[0][0]


async def fresh_user(service: Running) -> None:
    """Delete the user of the round and create a new one."""
    async with service.container.store.begin() as tx:
        for table in ("events", "password_resets", "session_data", "sessions", "users"):
            await tx.connection.execute(sa.text(f"delete from {table}"))


@pytest.mark.parametrize("how", ["logout", "password", "disable", "delete", "idle"])
async def test_a_refresh_never_outlives_an_ending(service: Running, how):
    """Fails without the condition on active sessions in the rotation and in note_refresh."""
    dice = random.Random(how)
    for _ in range(ROUNDS):
        await fresh_user(service)
        tokens = await service.sign_up()
        tokens["other"] = await service.log_in()
        service.clock.move(600)
        tokens["other"] = (await service.refresh(tokens["other"])).json()
        refreshes = [partial(service.refresh, tokens) for _ in range(3)]
        await shuffled(dice, *refreshes, partial(end, service, how, tokens))
        assert (await service.refresh(tokens)).status_code == 401
        kept = {"logout": 1, "password": 1}.get(how, 0)
        assert active(service) == kept


@pytest.mark.parametrize("how", ["password", "disable", "delete"])
async def test_no_session_is_born_of_what_has_just_ended(service: Running, how):
    """Fails without credential_version in lock_if_unchanged: a login with the old password gets in."""
    dice = random.Random(how)
    body = {"username": "ada", "password": PASSWORD}
    for _ in range(ROUNDS):
        await fresh_user(service)
        tokens = await service.sign_up()
        tokens["other"] = tokens
        logins = [partial(service.client.post, "/login", json=body) for _ in range(3)]
        done = await shuffled(dice, *logins, partial(end, service, how, tokens))
        assert {answer.status_code for answer in done[:3]} <= {200, 401}
        assert active(service) == (1 if how == "password" else 0)


async def test_logins_at_once_never_pass_the_limit(make_settings, clock):
    """Fails without the lock of the user's row at login."""
    limited = make_settings(sessions_per_user=3)
    async with running(limited, clock) as one, running(limited, clock) as two:
        dice = random.Random(3)
        for _ in range(ROUNDS):
            await fresh_user(one)
            await one.sign_up()
            await shuffled(dice, *(service.log_in for service in (one, two) for _ in range(5)))
            assert active(one) == 3


async def test_an_upgraded_hash_never_brings_an_old_password_back(service: Running):
    """Fails without `password_hash == verified` in upgrade_hash."""
    dice = random.Random(5)
    old = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    body = {"username": "ada", "password": PASSWORD}
    for _ in range(ROUNDS):
        await fresh_user(service)
        tokens = await service.sign_up()
        tokens["other"] = tokens
        async with service.container.store.begin() as tx:
            await tx.connection.execute(sa.update(users).values(password_hash=old))
        login = [partial(service.client.post, "/login", json=body) for _ in range(2)]
        await shuffled(dice, *login, partial(end, service, "password", tokens))
        assert (await service.client.post("/login", json=body)).status_code == 401
        await service.log_in(password=NEW)
