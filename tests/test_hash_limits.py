"""Password hashes are limited, right or wrong, and the queue for them is fair."""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import sqlalchemy as sa

from sessionapi.settings import Settings
from sessionapi.throttling import rate_limiter
from tests.support.api_client import PASSWORD, bearer
from tests.support.app import Running, running
from tests.support.clock import FakeClock
from tests.test_throttle import WRONG, at, hashes, refused, try_login

REAUTHENTICATE = "/sessions/current/reauthenticate"
SLOW = {"hash_memory_kib": 8192, "hash_time": 8, "hash_threads": 1}
"""The settings for hashes of about 30 ms, one after the other, so that a test can watch the queue."""


async def confirm(client: httpx.AsyncClient, tokens: dict[str, Any]) -> httpx.Response:
    return await client.post(REAUTHENTICATE, json={"password": PASSWORD}, headers=bearer(tokens))


async def change(client: httpx.AsyncClient, tokens: dict[str, Any]) -> httpx.Response:
    body = {"current_password": PASSWORD, "new_password": PASSWORD}
    return await client.post("/me/password", json=body, headers=bearer(tokens))


async def test_right_passwords_in_sessions_are_limited_for_each_user(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without the window of the user in Throttle, which covers all sessions and IP addresses."""
    async with running(make_settings(throttle=True), clock) as service:
        sessions = [await service.sign_up(), await service.log_in()]
        bob = await service.sign_up("bob")
        before = hashes(service)
        answers = await asyncio.gather(
            *(confirm(at(service, f"203.0.113.{number % 5}"), sessions[number % 2]) for number in range(40))
        )
        assert Counter(answer.status_code for answer in answers) == {200: 20, 429: 20}
        assert hashes(service) - before == 20, "what is refused costs no hash"
        assert refused(await change(service.client, sessions[0]), "attempt", 20, 60)
        assert (await confirm(service.client, bob)).status_code == 200
        assert (await try_login(service.client, PASSWORD)).status_code == 200, "a login has its own window"
        clock.move(60)
        assert (await confirm(service.client, await service.log_in())).status_code == 200


async def test_an_address_that_goes_on_when_it_is_refused_waits(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without `slow_down`. Another IP address gets its response while the refusal waits."""
    settings = make_settings(throttle=True, login_per_address=1)
    async with running(settings, clock) as service:
        flooding, other = at(service, "203.0.113.1"), at(service, "203.0.113.2")
        for client in (flooding, other):
            assert (await try_login(client, WRONG, "nobody")).status_code == 401
        for _ in range(rate_limiter.REFUSALS_PER_ADDRESS):
            assert (await try_login(flooding, WRONG, "nobody")).status_code == 429
        waiting = asyncio.create_task(try_login(flooding, WRONG, "nobody"))
        for _ in range(10):
            assert (await try_login(other, WRONG, "nobody")).status_code == 429
        assert not waiting.done()
        assert refused(await waiting, "login", 1, 60)
        clock.move(60)
        assert (await try_login(flooding, WRONG, "nobody")).status_code == 401


async def test_a_check_in_a_session_that_memory_refuses_asks_no_query(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without `check_in_session`: each refusal took a write transaction."""
    async with running(make_settings(throttle=True, password_checks_per_user=3), clock) as service:
        tokens = await service.sign_up()
        for _ in range(3):
            assert (await confirm(service.client, tokens)).status_code == 200
        statements: list[str] = []
        for engine in (service.container.store._writer, service.container.store._reader):
            sa.event.listen(
                engine.sync_engine, "before_cursor_execute", lambda *sent: statements.append(sent[2])
            )
        for ask in (confirm, change):
            assert refused(await ask(service.client, tokens), "attempt", 3, 60)
        assert statements == []


@pytest.mark.parametrize("name", ["ada", "nobody"])
async def test_logins_of_one_name_are_limited_from_however_many_addresses(
    make_settings: Callable[..., Settings], clock: FakeClock, name: str
):
    """Fails without the window of the name in Throttle, known or unknown, in any case and width."""
    spellings = (name, name.upper(), name.title(), "".join(chr(ord(c) + 0xFEE0) for c in name))
    async with running(make_settings(throttle=True), clock) as service:
        known = await service.sign_up()
        answers = [
            await try_login(at(service, f"198.51.100.{number}"), PASSWORD, spellings[number % 4])
            for number in range(30)
        ]
        status = 200 if name == "ada" else 401
        assert [answer.status_code for answer in answers] == [status] * 20 + [429] * 10
        assert refused(answers[-1], "attempt", 20, 60)
        device = {"device_token": known["device_token"]}
        assert (await try_login(service.client, PASSWORD, **device)).status_code == 200


async def test_right_passwords_on_known_devices_are_limited_for_each_user(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Many devices of one user count as one."""
    async with running(make_settings(throttle=True), clock) as service:
        devices = [(await service.sign_up())["device_token"], (await service.log_in())["device_token"]]
        answers = [
            await try_login(at(service, f"198.51.100.{number}"), PASSWORD, device_token=devices[number % 2])
            for number in range(25)
        ]
        assert [answer.status_code for answer in answers] == [200] * 20 + [429] * 5


async def test_password_checks_in_sessions_are_limited_for_each_address(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without the window of the IP address in Throttle, whose limit is five times that of a user."""
    settings = make_settings(throttle=True, password_checks_per_user=3)
    async with running(settings, clock) as service:
        users = [await service.sign_up(f"user{number}") for number in range(6)]
        near, elsewhere = at(service, "2001:db8:1:2::1"), at(service, "2001:db8:1:3::1")
        answers = [await confirm(near, tokens) for tokens in users for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200] * 15 + [429] * 3
        assert refused(answers[-1], "attempt_address", 15, 60)
        assert (await confirm(at(service, "2001:db8:1:2::2"), users[5])).status_code == 429
        clock.move(60)
        assert (await confirm(elsewhere, await service.log_in("user5"))).status_code == 200


async def test_password_resets_are_limited_for_each_address_and_user(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without `count_login` or `count_reset` in Accounts.reset_password."""
    settings = make_settings(throttle=True, login_per_address=5, password_checks_per_user=3)
    async with running(settings, clock) as service:
        await service.sign_up()
        user = await service.container.accounts.find("ada")
        body = {"token": "pr_" + "0" * 64, "new_password": "another good password"}
        answers = [await service.client.post("/password-reset", json=body) for _ in range(6)]
        assert [answer.status_code for answer in answers] == [422] * 5 + [429]
        assert refused(answers[-1], "login", 5, 60)
        body["token"] = await service.container.accounts.make_reset_token(user.id)
        before = hashes(service)
        answers = await asyncio.gather(
            *(at(service, f"203.0.113.{number}").post("/password-reset", json=body) for number in range(10))
        )
        assert Counter(answer.status_code for answer in answers) == {204: 1, 422: 2, 429: 7}
        assert hashes(service) - before == 3


async def under_way(service: Running, places: int) -> None:
    """Wait until the given number of hashes wait or are under way."""
    while service.container.metrics.hash_queue._value.get() < places:
        await asyncio.sleep(0)


async def left(tasks: list[asyncio.Task[httpx.Response]]) -> int:
    return sum(not task.done() for task in tasks)


async def test_a_user_with_the_right_password_delays_nobodys_login(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if the queue is served in the order of arrival. Limits are off, so only the queue decides."""
    async with running(make_settings(**SLOW), clock) as service:
        ada = await service.sign_up()
        await service.sign_up("bob")
        flood = [asyncio.create_task(confirm(service.client, ada)) for _ in range(20)]
        await under_way(service, 20)
        await service.log_in("bob")
        assert await left(flood) >= 10
        assert (await try_login(service.client, WRONG, "nobody")).status_code == 401
        assert await left(flood) >= 5
        assert Counter(answer.status_code for answer in await asyncio.gather(*flood)) == {200: 20}


async def test_names_that_nobody_has_from_one_address_delay_no_other_address(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if each made-up name gets a separate turn."""
    async with running(make_settings(**SLOW), clock) as service:
        await service.sign_up("bob")
        stranger = at(service, "203.0.113.9")
        flood = [asyncio.create_task(try_login(stranger, WRONG, f"nobody{number}")) for number in range(30)]
        await under_way(service, 30)
        await service.log_in("bob")
        assert await left(flood) >= 20
        assert {answer.status_code for answer in await asyncio.gather(*flood)} == {401}


async def test_users_behind_one_address_take_turns(make_settings: Callable[..., Settings], clock: FakeClock):
    """Fails if a network's queue is served in the order of arrival."""
    async with running(make_settings(**SLOW), clock) as service:
        await service.sign_up()
        await service.sign_up("bob")
        flood = [asyncio.create_task(try_login(service.client, PASSWORD)) for _ in range(20)]
        await under_way(service, 20)
        await service.log_in("bob")
        assert await left(flood) >= 10
        await asyncio.gather(*flood)


async def test_what_one_user_or_one_address_may_queue_leaves_room_for_others(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without the bounds of a user and of a network in HashPool. A refusal counts no attempt."""
    async with running(make_settings(**SLOW), clock) as service:
        ada = await service.sign_up()
        await service.sign_up("bob")
        stranger = at(service, "203.0.113.9")
        flood = [asyncio.create_task(confirm(service.client, ada)) for _ in range(60)]
        flood += [asyncio.create_task(try_login(stranger, WRONG, f"nobody{number}")) for number in range(100)]
        await under_way(service, 25)
        await service.log_in("bob")
        answers = await asyncio.gather(*flood)
        outcomes = Counter(answer.status_code for answer in answers)
        assert set(outcomes) == {200, 401, 503}
        assert outcomes[200] < 60
        assert all(
            answer.json()["code"] == "overloaded" and answer.headers["retry-after"] == "1"
            for answer in answers
            if answer.status_code == 503
        )


@pytest.mark.engines("postgresql")
async def test_what_waits_for_a_hash_holds_no_transaction(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if the wait for a place happens inside the transaction that reserves the attempt."""
    settings = make_settings(**SLOW, database_pool=3)
    async with running(settings, clock) as service:
        ada = await service.sign_up()
        flood = [asyncio.create_task(confirm(service.client, ada)) for _ in range(20)]
        await under_way(service, 20)
        while not any(task.done() for task in flood):
            await asyncio.sleep(0.01)
        answers = [await service.get("/me", ada) for _ in range(5)]
        assert await left(flood) >= 5
        assert {answer.status_code for answer in answers} == {200}
        await asyncio.gather(*flood)
