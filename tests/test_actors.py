"""Lock order, retries and endings, on which `Actors` relies. PostgreSQL runs several transactions at once."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from sessionapi import ids
from sessionapi.settings import Settings
from tests.support import postgres
from tests.support.api_client import PASSWORD, bearer, refusal
from tests.support.app import Running, running
from tests.support.clock import FakeClock

NEW = "another good password"
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"
WAITING = (
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
)
ROUNDS = 12
pytestmark = [pytest.mark.engines("postgresql"), pytest.mark.timeout(300)]


@asynccontextmanager
async def other_connection(service: Running) -> AsyncIterator[asyncpg.Connection]:
    """Yield a second connection to the database, with a transaction that ends with the block."""
    connection = await asyncpg.connect(service.container.settings.effective_database_url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def hold_user(connection: asyncpg.Connection, name: str = "ada") -> None:
    await connection.execute("SELECT 1 FROM users WHERE username = $1 FOR UPDATE", name)


async def waits(service: Running, *tasks: asyncio.Task) -> None:
    """Wait until each of the tasks waits for a lock; none may finish without it."""
    while (await asyncio.to_thread(service.rows, WAITING)) != [(len(tasks),)]:
        assert not any(task.done() for task in tasks), "it needed no lock"


def deadlocks(service: Running) -> int:
    postgres.execute(service.container.settings.effective_database_url, "select pg_stat_force_next_flush()")
    return service.rows(DEADLOCKS)[0][0]


def user_id(tokens: dict[str, Any]) -> UUID:
    found = ids.parse("user", tokens["user"]["id"])
    assert found
    return found


async def reset(service: Running, token: str, password: str = NEW) -> httpx.Response:
    return await service.client.post("/password-reset", json={"token": token, "new_password": password})


async def test_a_password_reset_locks_the_user_first_as_a_deletion_does(service: Running):
    """Fails without UserQueries.lock in Accounts._reset: it locked its own row first, and both waited."""
    tokens = await service.sign_up()
    token = await service.container.accounts.make_reset_token(user_id(tokens))
    before = deadlocks(service)
    async with other_connection(service) as other:
        await hold_user(other)
        deletion = asyncio.create_task(service.send("DELETE", "/me", tokens))
        await waits(service, deletion)
        resetting = asyncio.create_task(reset(service, token))
        await waits(service, deletion, resetting)
    assert (await deletion).status_code == 204
    assert refusal(await resetting)[:2] == (422, "validation_failed")
    assert deadlocks(service) == before


async def test_password_resets_changes_logins_and_endings_at_once_end_in_no_deadlock(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if one of them locks in another order than the others."""
    async with running(make_settings(database_pool=20), clock) as service:
        tokens = await service.sign_up()
        owner, password, statuses = user_id(tokens), PASSWORD, set()
        before = deadlocks(service)
        for number in range(ROUNDS):
            made = await service.log_in(password=password)
            token = await service.container.accounts.make_reset_token(owner)
            following = f"{NEW} {number}"
            bodies = {"current_password": password, "new_password": following}
            login = {"username": "ada", "password": password}
            answers = await asyncio.gather(
                service.send("POST", "/me/password", made, bodies),
                reset(service, token, following),
                service.client.post("/login", json=login),
                service.send("DELETE", "/sessions", made),
                service.send("PATCH", "/me", made, {"preferences": {"round": number}}),
                service.client.post("/logout", json={"refresh_token": made["refresh_token"]}),
                service.refresh(made),
                service.container.accounts.make_reset_token(owner),
                service.container.purge.run(),
                return_exceptions=True,
            )
            statuses |= {each.status_code for each in answers if isinstance(each, httpx.Response)}
            assert not [each for each in answers if isinstance(each, BaseException)]
            if (await service.client.post("/login", json=login)).status_code == 401:
                password = following
        assert deadlocks(service) == before
        assert max(statuses) < 500


async def test_what_a_deadlock_has_undone_is_attempted_again_and_leaves_its_traces_once(service: Running):
    """Fails without the second attempt in Store.run: the response was a 503, and nothing was ended."""
    tokens = await service.sign_up()
    before = deadlocks(service)
    async with other_connection(service) as other:
        await other.execute("SET LOCAL deadlock_timeout = '60s'")  # so that ours is rolled back
        await other.execute("SELECT 1 FROM sessions FOR UPDATE")
        ending = asyncio.create_task(service.send("DELETE", "/sessions", tokens))
        await waits(service, ending)
        await hold_user(other)
    answer = await ending
    assert (answer.status_code, answer.json()) == (200, {"revoked": 1})
    assert deadlocks(service) == before + 1
    assert service.rows("select count(*) from events where kind = 'session.ended'") == [(1,)]
    assert refusal(await service.get("/protected", tokens)) == (401, "session_revoked", "revoked_by_user")


async def by_cookie(service: Running, username: str) -> tuple[dict[str, Any], str]:
    body = {"username": username, "password": PASSWORD, "transport": "cookie"}
    answer = await service.client.post("/signup", json=body)
    service.client.cookies.clear()
    return answer.json(), answer.cookies["__Host-session"]


async def log_in_over(service: Running, cookie: str, username: str) -> httpx.Response:
    body = {"username": username, "password": PASSWORD, "transport": "cookie"}
    return await service.client.post("/login", json=body, headers={"Cookie": f"__Host-session={cookie}"})


async def ending_of(how: str, service: Running) -> Callable[[], Awaitable[Any]]:
    """Prepare a session of ada's, and return a function that ends it."""
    if how in ("login", "sign-up"):
        tokens, cookie = await by_cookie(service, "ada")
        if how == "login":
            await service.sign_up("bob")
            return partial(log_in_over, service, cookie, "bob")
        body = {"username": "bob", "password": PASSWORD, "transport": "cookie"}
        headers = {"Cookie": f"__Host-session={cookie}"}
        return partial(service.client.post, "/signup", json=body, headers=headers)
    tokens = await service.sign_up()
    if how == "reuse":
        service.clock.move(600)
        await service.refresh(tokens)
        service.clock.move(11)
        return partial(service.refresh, tokens)
    if how == "mark":
        return partial(service.container.all_sessions.revoke, "revoked_by_admin")
    return {
        "logout": partial(service.client.post, "/logout", json={"refresh_token": tokens["refresh_token"]}),
        "logout by access token": partial(service.client.post, "/logout", headers=bearer(tokens)),
        "one session": partial(service.send, "DELETE", f"/sessions/{tokens['session_id']}", tokens),
        "all sessions": partial(service.send, "DELETE", "/sessions", tokens),
        "older sessions": partial(
            service.container.all_sessions.revoke, "revoked_by_admin", timedelta(seconds=-60)
        ),
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "logout",
        "logout by access token",
        "one session",
        "all sessions",
        "older sessions",
        "login",
        "sign-up",
        "reuse",
        "mark",
    ],
)
async def test_whatever_ends_a_session_waits_for_the_writes_of_its_user(service: Running, how: str):
    """Fails without the lock of the user's row before the ending: a write under way would commit after it."""
    act = await ending_of(how, service)
    async with other_connection(service) as other:
        await hold_user(other)  # as a write does
        ending = asyncio.create_task(act())
        await waits(service, ending)
        assert service.rows("select count(*) from sessions where revoked_at is not null") == [(0,)]
    await ending
    assert service.rows("select count(*) from sessions where revoked_at is not null") == [(1,)]


async def test_a_stale_token_that_meets_a_new_secret_is_unknown_and_ends_nothing(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if reuse is detected before the user's row is locked: the confirmed session would end."""
    async with running(make_settings(), clock) as service, running(make_settings(), clock) as other:
        stale = await service.sign_up()
        clock.move(600)
        fresh = (await service.refresh(stale)).json()
        clock.move(11)
        key = (user_id(fresh), ids.parse("sess", fresh["session_id"]))
        async with other.container.store.begin() as tx:
            await tx.users.lock({key[0]})
            late = asyncio.create_task(service.refresh(stale))
            await waits(service, late)
            assert await tx.sessions.replace_secret(*key, ids.digest(b"another secret!!"), clock())
        assert refusal(await late) == (401, "invalid_refresh_token", None)
        assert service.rows("select count(*) from sessions where revoked_at is not null") == [(0,)]


async def test_two_administrators_who_act_on_each_other_end_in_no_deadlock(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without ORDER BY in UserQueries.lock."""
    async with running(make_settings(database_pool=20), clock) as service:
        admins = []
        for name in ("ada", "bob"):
            await service.sign_up(name)
            postgres.execute(
                service.container.settings.effective_database_url,
                f"update users set roles = '[\"admin\"]' where username = '{name}'",
            )
            admins.append(await service.log_in(name))
        before = deadlocks(service)
        acts = [
            service.send("PATCH", f"/admin/users/{of['user']['id']}", by, {"claims": {"n": number}})
            for number in range(ROUNDS)
            for by, of in (admins, admins[::-1])
        ]
        assert {answer.status_code for answer in await asyncio.gather(*acts)} == {200}
        assert deadlocks(service) == before
