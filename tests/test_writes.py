"""The writes of a session are limited, and a request that changes nothing writes nothing."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import httpx
import pytest

from sessionapi.settings import Settings
from sessionapi.storage import database_url
from tests.support import postgres
from tests.support.api_client import PASSWORD, bearer
from tests.support.app import Running, running
from tests.support.clock import FakeClock
from tests.test_throttle import at, kinds, refused

NAMES = {"username", "email", "preferences"}


@pytest.fixture
async def limited(make_settings: Callable[..., Settings], clock: FakeClock) -> AsyncIterator[Running]:
    """The app with its default limits."""
    async with running(make_settings(throttle=True), clock) as it:
        yield it


class Written:
    """Notice each commit that changes a row, from outside the app."""

    def __init__(self, service: Running) -> None:
        self._url = service.container.settings.effective_database_url
        self._file = None
        if self._url.startswith("sqlite:"):
            self._file = sqlite3.connect(database_url.sqlite_path(self._url))
        self.version = self._look()

    def _look(self) -> Any:
        if self._file:
            return self._file.execute("pragma data_version").fetchone()
        tables = ("users", "sessions", "session_data", "events", "password_tries")
        return [
            sorted(map(repr, postgres.fetch(self._url, f"select ctid::text, xmin::text from {each}")))
            for each in tables
        ]

    def anything(self) -> bool:
        """Return whether a row has changed since the last call."""
        before, self.version = self.version, self._look()
        return before != self.version

    def close(self) -> None:
        if self._file:
            self._file.close()


async def test_a_change_of_the_account_to_what_it_is_writes_nothing(service: Running):
    """Fails if Accounts.change writes or records values that don't change."""
    tokens = await service.sign_up("Ada", email="ada@example.com")
    first = {"preferences": {"theme": "dark", "n": 1, "deep": {"a": [1, {"b": None}]}}}
    await service.send("PATCH", "/me", tokens, first)
    before = (await service.get("/me", tokens)).json()
    with closing(Written(service)) as written:
        for body in (
            {},
            {"username": "Ada"},
            {"email": "ada@example.com"},
            {"username": None, "preferences": None},
            {"preferences": {}},
            {"preferences": {"theme": "dark"}},
            {"preferences": {"absent": None}},
            {"username": "Ada", "email": "ada@example.com", **first},
        ):
            answer = await service.send("PATCH", "/me", tokens, body)
            assert (answer.status_code, answer.json()) == (200, before), body
            assert not written.anything(), body
        assert kinds(service)["user.changed"] == 1
        await service.send("PATCH", "/me", tokens, {"username": "Ada", "preferences": {"n": True}})
        assert written.anything()
    assert (await service.get("/me", tokens)).json()["preferences"]["n"] is True, "true is not 1"
    recorded = service.rows("select details from events where kind = 'user.changed' order by id")
    assert "username" not in str(recorded[-1]), "only what has changed is recorded"


async def test_a_change_of_the_session_to_what_it_is_writes_nothing(service: Running):
    """Fails if Sessions.update writes values that don't change."""
    tokens = await service.sign_up()
    first = {"data": {"tab": "inbox", "n": 1}, "device_name": "Desk"}
    before = (await service.send("PATCH", "/sessions/current", tokens, first)).json()
    with closing(Written(service)) as written:
        for body in (
            {},
            {"data": {}},
            {"data": {"n": 1}},
            {"data": {"absent": None}},
            {"device_name": "Desk"},
            first,
        ):
            answer = await service.send("PATCH", "/sessions/current", tokens, body)
            assert (answer.status_code, answer.json()) == (200, before), body
            assert not written.anything(), body
        for body in ({"data": {"n": True}}, {"device_name": "Phone"}):
            await service.send("PATCH", "/sessions/current", tokens, body)
            assert written.anything(), body


async def test_an_administrators_change_to_what_it_is_writes_nothing(service: Running):
    """Fails if Accounts.disable, enable, unlock or change writes or records values that don't change."""
    admin, user = await service.administrator(), await service.sign_up()
    path = f"/admin/users/{user['user']['id']}"
    changed = {"roles": ["editor"], "claims": {"tenant": "acme"}}
    await service.send("PATCH", path, admin, changed)
    with closing(Written(service)) as written:
        for body in ({}, {"disabled": False}, {"locked": False}, {"roles": ["editor"]}, changed):
            assert (await service.send("PATCH", path, admin, body)).status_code == 200
            assert not written.anything(), body
        service.clock.move(1)
        disabled = (await service.send("PATCH", path, admin, {"disabled": True})).json()
        assert written.anything()
        service.clock.move(1)
        assert (await service.send("PATCH", path, admin, {"disabled": True})).json() == disabled
        assert not written.anything()
    assert kinds(service)["user.disabled"] == 1
    assert kinds(service)["user.enabled"] == kinds(service)["user.unlocked"] == 0


async def test_the_sixty_first_write_of_a_session_in_a_minute_is_refused(limited: Running):
    """Fails without `count_write` in AccessToken. Reads go on, and so do other sessions and users."""
    mine, other, bob = await limited.sign_up(), await limited.log_in(), await limited.sign_up("bob")
    answers = await asyncio.gather(
        *(limited.send("PATCH", "/me", mine, {"preferences": {"n": n}}) for n in range(100))
    )
    assert Counter(answer.status_code for answer in answers) == {200: 60, 429: 40}
    assert kinds(limited)["user.changed"] == 60
    assert refused(await limited.send("PATCH", "/sessions/current", mine, {"data": {}}), "write", 60, 60)
    assert (await limited.send("GET", "/me", mine)).status_code == 200
    assert (await limited.send("GET", "/protected", mine)).status_code == 200
    for tokens in (other, bob):
        body = {"preferences": {"mine": True}}
        assert (await limited.send("PATCH", "/me", tokens, body)).status_code == 200
    limited.clock.move(60)
    mine = (await limited.refresh(mine)).json()
    assert (await limited.send("PATCH", "/me", mine, {"preferences": {"n": 1}})).status_code == 200


async def test_many_sessions_of_one_user_write_no_more_than_five(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without the window of the user in Throttle.count_write."""
    async with running(make_settings(throttle=True, writes_per_session=3), clock) as service:
        await service.sign_up()
        sessions = [await service.log_in() for _ in range(10)]
        answers = [
            await service.send("PATCH", "/me", tokens, {"preferences": {f"n{number}": turn}})
            for turn in range(3)
            for number, tokens in enumerate(sessions)
        ]
        assert Counter(answer.status_code for answer in answers) == {200: 15, 429: 15}
        assert refused(answers[-1], "write_user", 15, 60)


async def test_a_session_can_be_ended_however_much_it_has_written(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """A second logout, by any credential, writes nothing."""
    async with running(make_settings(throttle=True, writes_per_session=1), clock) as service:
        tokens = await service.sign_up()
        for _ in range(3):
            await service.send("PATCH", "/me", tokens, {})
        assert (await service.send("POST", "/logout", tokens)).status_code == 204
        with closing(Written(service)) as written:
            for _ in range(3):
                await service.send("POST", "/logout", tokens)
                await service.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})
            assert not written.anything()


async def test_one_limit_counts_sign_ups_and_new_names_from_an_address(limited: Running):
    """Fails without `count_new_name` in Accounts.change: 255 names a second could be tried."""
    ada, bob = await limited.sign_up(), await limited.sign_up("bob")
    for number in range(4):
        for tokens, name in ((ada, ("bob", "BOB")), (bob, ("ada", "Ada"))):
            answer = await limited.send("PATCH", "/me", tokens, {"username": name[number % 2]})
            assert (answer.status_code, answer.json()["code"]) == (409, "username_taken")
    for name in ("bob", "free", "BOB", "ｂｏｂ"):
        answer = await limited.send("PATCH", "/me", ada, {"username": name})
        assert refused(answer, "signup", 10, 3600)
    refused(
        await limited.client.post("/signup", json={"username": "eve", "password": PASSWORD}),
        "signup",
        10,
        3600,
    )
    changed = await limited.send("PATCH", "/me", ada, {"preferences": {"a": 1}})
    assert changed.status_code == 200, "only names are limited"
    limited.clock.move(3600)
    ada = await limited.log_in()
    assert (await limited.send("PATCH", "/me", ada, {"username": "free"})).status_code == 200


async def patch_name(client: httpx.AsyncClient, tokens: dict[str, Any], name: str) -> httpx.Response:
    return await client.patch("/me", json={"username": name}, headers=bearer(tokens))


async def test_a_user_asks_for_ten_names_an_hour_from_however_many_addresses_and_sessions(limited: Running):
    """Fails without the window of the user in Throttle.count_new_name."""
    await limited.sign_up("bob")
    await limited.sign_up()
    sessions = [await limited.log_in() for _ in range(2)]
    answers = [
        await patch_name(at(limited, f"203.0.113.{number}"), sessions[number % 2], "bob")
        for number in range(12)
    ]
    assert [answer.status_code for answer in answers] == [409] * 10 + [429] * 2


async def test_users_of_one_network_share_the_limit_of_names(limited: Running):
    """An IPv6 /64 is one network."""
    users = [await limited.sign_up(name) for name in ("ada", "bob", "eve")]
    answers = [
        await patch_name(at(limited, f"2001:db8:1:2::{number}"), users[number % 3], f"free{number}")
        for number in range(12)
    ]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429] * 2
    assert (await patch_name(at(limited, "2001:db8:1:3::1"), users[0], "last")).status_code == 200


async def test_the_users_own_name_in_other_letters_is_no_question(limited: Running):
    """Nothing is revealed about the user's own name: only a name with another key is counted."""
    tokens = await limited.sign_up()
    for number in range(30):
        name = ("ADA", "Ada", "ａｄａ", "ada")[number % 4]
        assert (await limited.send("PATCH", "/me", tokens, {"username": name})).status_code == 200
    answer = await limited.send("PATCH", "/me", tokens, {"username": "two words"})
    assert answer.status_code == 422
    for number in range(9):
        assert (await patch_name(limited.client, tokens, f"free{number}")).status_code == 200
    assert (await patch_name(limited.client, tokens, "free")).status_code == 429


async def test_repeats_elsewhere_fill_the_audit_log_no_faster_than_a_users_writes(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without the window of the user in Refreshes: each session has a limit of 120 a minute."""
    settings = make_settings(throttle=True, writes_per_session=1, login_per_address=100)
    async with running(settings, clock) as service:
        await service.sign_up()
        sessions = [await service.log_in() for _ in range(4)]
        clock.move(600)
        for tokens in sessions:
            assert (await service.refresh(tokens)).status_code == 200
        elsewhere = at(service, "203.0.113.9")
        answers = [
            await elsewhere.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
            for tokens in sessions * 5
        ]
    assert Counter(answer.status_code for answer in answers) == {200: 5, 429: 15}


async def test_what_other_sessions_write_keeps_no_session_from_ending_them(make_settings, clock):
    """Fails if a DELETE counts for the user: a thief's sessions would use up the owner's limit."""
    async with running(make_settings(throttle=True, writes_per_session=1), clock) as service:
        owner = await service.sign_up()
        for _ in range(6):
            thief = await service.log_in()
            last = await service.send("PATCH", "/me", thief, {"preferences": {"by": thief["session_id"]}})
        assert refused(last, "write_user", 5, 60)
        answer = await service.send("DELETE", "/sessions?keep_current=true", owner)
        assert (answer.status_code, answer.json()) == (200, {"revoked": 6})
        assert refused(await service.send("DELETE", "/sessions", owner), "write", 1, 60)
