"""CWE-770: every route that hashes or writes is limited per user and address, right or wrong."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from sessionapi.settings import Settings
from tests.support.api_client import PASSWORD
from tests.support.app import Running, running
from tests.support.clock import FakeClock
from tests.test_throttle import at, hashes, kinds, refused

FEW = {"login_per_address": 5, "signup_per_address": 5, "password_checks_per_user": 5}


async def log_in(service: Running, client: httpx.AsyncClient, tokens: dict[str, Any]) -> httpx.Response:
    return await client.post("/login", json={"username": "ada", "password": PASSWORD})


async def sign_up(service: Running, client: httpx.AsyncClient, tokens: dict[str, Any]) -> httpx.Response:
    return await client.post("/signup", json={"username": "ada", "password": PASSWORD})


async def confirm(service: Running, client: httpx.AsyncClient, tokens: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    return await client.post("/sessions/current/reauthenticate", json={"password": PASSWORD}, headers=headers)


async def change(service: Running, client: httpx.AsyncClient, tokens: dict[str, Any]) -> httpx.Response:
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    body = {"current_password": PASSWORD, "new_password": PASSWORD}
    return await client.post("/me/password", json=body, headers=headers)


async def reset(service: Running, client: httpx.AsyncClient, tokens: dict[str, Any]) -> httpx.Response:
    user = await service.container.accounts.find("ada")
    token = await service.container.accounts.make_reset_token(user.id)
    return await client.post("/password-reset", json={"token": token, "new_password": PASSWORD})


Send = Callable[[Running, httpx.AsyncClient, dict[str, Any]], Any]


@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("send", [log_in, confirm, change, reset])
@pytest.mark.requirement("load")
async def test_each_route_that_hashes_is_limited_with_the_right_password(
    make_settings: Callable[..., Settings], clock: FakeClock, send: Send, elsewhere: bool
):
    """Fails without the limit of the user: the right password would be hashed without limit, anywhere."""
    async with running(make_settings(throttle=True, **FEW), clock) as service:
        tokens = await service.sign_up()
        before = hashes(service)
        statuses = []
        for number in range(12):
            client = at(service, f"203.0.113.{number}") if elsewhere else service.client
            answer = await send(service, client, tokens)
            statuses.append(answer.status_code)
            if send is change and answer.status_code == 200:
                tokens = answer.json()
        assert set(statuses[:5]) <= {200, 204}
        assert statuses[5:] == [429] * 7
        cost = 2 if send is change else 1
        assert hashes(service) - before == 5 * cost


@pytest.mark.requirement("load")
async def test_sign_ups_are_limited_also_when_they_fail(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without `count_signup`: each request would cost a hash and reveal whether a name is taken."""
    async with running(make_settings(throttle=True, **FEW), clock) as service:
        tokens = await service.sign_up()
        answers = [await sign_up(service, service.client, tokens) for _ in range(8)]
        assert [answer.status_code for answer in answers] == [409] * 4 + [429] * 4
        assert hashes(service) == 5


@pytest.mark.requirement("load")
async def test_one_user_delays_no_other_users_login(make_settings: Callable[..., Settings], clock: FakeClock):
    """Fails if hashes are computed in the order of arrival. There is one thread, and no other limit is on."""
    slow = {"hash_memory_kib": 8192, "hash_time": 8, "hash_threads": 1}
    async with running(make_settings(**slow), clock) as service:
        ada = await service.sign_up()
        await service.sign_up("bob")
        flood = [asyncio.create_task(confirm(service, service.client, ada)) for _ in range(20)]
        while service.container.metrics.hash_queue._value.get() < 20:
            await asyncio.sleep(0)
        await service.log_in("bob")
        assert sum(not task.done() for task in flood) >= 10
        await asyncio.gather(*flood)


LOGOUT = ("post", "/logout")
"""Not limited, because a session can always be ended and a second logout of it writes nothing."""


@pytest.mark.requirement("load")
async def test_each_route_that_changes_something_under_an_access_token_is_limited(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if a route takes an access token through another dependency than `Bearer` or `Admin`."""
    async with running(make_settings(throttle=True, writes_per_session=1), clock) as service:
        admin = await service.administrator()
        document = (await service.client.get("/openapi.json")).json()
        found = [
            (method, path)
            for path, operations in document["paths"].items()
            for method, operation in operations.items()
            if method not in ("get", "head", "options")
            and any("AccessToken" in each for each in operation.get("security", []))
            and (method, path) != LOGOUT
        ]
        assert len(found) >= 11, found
        assert {("patch", "/me"), ("delete", "/sessions/{session_id}")} <= set(found)
        assert (await service.send("PATCH", "/me", admin, {})).status_code == 200
        for method, path in found:
            full = path.replace("{user_id}", admin["user"]["id"]).replace("{session_id}", admin["session_id"])
            answer = await service.send(method.upper(), full, admin, {})
            assert refused(answer, "write", 1, 60), (method, path)
        assert (await service.send("POST", "/logout", admin)).status_code == 204


@pytest.mark.requirement("load")
async def test_what_changes_nothing_leaves_no_row(service: Running):
    """Fails if Accounts.change records values that don't change."""
    tokens = await service.sign_up()
    for _ in range(20):
        assert (await service.send("PATCH", "/me", tokens, {"preferences": {}})).status_code == 200
        assert (await service.send("PATCH", "/sessions/current", tokens, {"data": {}})).status_code == 200
    assert set(kinds(service)) == {"user.created", "session.started"}
