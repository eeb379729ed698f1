"""ASVS 7.2.4, 7.4.1, 7.4.2, 8.3.2: a write checks its caller in its transaction, with the rows locked."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest
import sqlalchemy as sa

from sessionapi import ids
from sessionapi.sessions.actors import OPERATOR
from sessionapi.settings import Settings
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running, running
from tests.support.clock import FakeClock

NEW = "another good password"
REAUTHENTICATE = "/sessions/current/reauthenticate"
TABLES = ("users", "sessions", "session_data", "events", "password_resets", "password_tries")
UNDER_WAY = 16
"""Writes that wait at the same time."""
Write = tuple[str, str, Any]

OWN: dict[str, Write] = {
    "preferences": ("PATCH", "/me", {"preferences": {"theme": "dark"}}),
    "name and e-mail": ("PATCH", "/me", {"username": "mallory", "email": "mallory@example.com"}),
    "deletion": ("DELETE", "/me", None),
    "password": ("POST", "/me/password", {"current_password": PASSWORD, "new_password": NEW}),
    "wrong password": ("POST", "/me/password", {"current_password": "wrong horse", "new_password": NEW}),
    "reauthentication": ("POST", REAUTHENTICATE, {"password": PASSWORD}),
    "session data": ("PATCH", "/sessions/current", {"data": {"cart": [1]}}),
    "device name": ("PATCH", "/sessions/current", {"device_name": "a phone"}),
    "one session": ("DELETE", "/sessions/{session}", None),
    "own session": ("DELETE", "/sessions/{current}", None),
    "all sessions": ("DELETE", "/sessions", None),
    "all other sessions": ("DELETE", "/sessions?keep_current=true", None),
}
ADMIN: dict[str, Write] = {
    "roles": ("PATCH", "/admin/users/{user}", {"roles": ["admin"]}),
    "claims": ("PATCH", "/admin/users/{user}", {"claims": {"plan": "gold"}}),
    "disabling": ("PATCH", "/admin/users/{user}", {"disabled": True}),
    "unlocking": ("PATCH", "/admin/users/{user}", {"locked": False}),
    "everything": ("PATCH", "/admin/users/{user}", {"roles": [], "disabled": True, "locked": False}),
    "own roles": ("PATCH", "/admin/users/{admin}", {"roles": ["admin"], "disabled": False}),
    "deletion": ("DELETE", "/admin/users/{user}", None),
    "one session": ("DELETE", "/admin/users/{user}/sessions/{session}", None),
    "all sessions": ("DELETE", "/admin/users/{user}/sessions", None),
}
"""Every route that writes for a caller with an access token. A new one without a line here fails a test."""


def state(service: Running) -> dict[str, list[tuple]]:
    """Return all rows that a write could change."""
    return {table: sorted(service.rows(f"select * from {table}"), key=repr) for table in TABLES}


def id_of(kind: ids.Kind, text: str) -> UUID:
    found = ids.parse(kind, text)
    assert found
    return found


async def send(service: Running, write: Write, tokens: dict[str, Any], **names: str) -> httpx.Response:
    method, path, body = write
    return await service.send(method, path.format(**names), tokens, body)


@asynccontextmanager
async def two_processes(
    make_settings: Callable[..., Settings], clock: FakeClock
) -> AsyncIterator[tuple[Running, Running]]:
    """Two services on one database; the first one learns nothing of what ends in the second."""
    settings = make_settings(revocation_poll=10, database_pool=UNDER_WAY + 2)
    async with running(settings, clock) as one, running(make_settings(), clock) as other:
        yield one, other


def test_every_route_that_writes_for_a_caller_is_tried_here(make_settings, clock):
    """Fails if a route that takes an access token and isn't a GET has no line in OWN or ADMIN."""

    async def document() -> dict[str, Any]:
        async with running(make_settings(), clock) as service:
            return (await service.client.get("/openapi.json")).json()

    routes = {
        (method.upper(), path.replace("{user_id}", "{user}").replace("{session_id}", "{session}"))
        for path, methods in asyncio.run(document())["paths"].items()
        for method, route in methods.items()
        if method != "get" and [*route.get("security", [])] == [{"AccessToken": []}]
    }
    tried = {(method, path.partition("?")[0]) for method, path, _ in (*OWN.values(), *ADMIN.values())}
    assert routes
    assert routes <= tried


async def end_all(other: Running, tokens: dict[str, Any]) -> httpx.Response:
    return await other.send("DELETE", "/sessions", tokens)


async def log_out(other: Running, tokens: dict[str, Any]) -> httpx.Response:
    return await other.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})


async def disable(other: Running, tokens: dict[str, Any]) -> None:
    path = f"/admin/users/{tokens['user']['id']}"
    answer = await other.send("PATCH", path, await other.log_in("root"), {"disabled": True})
    assert answer.status_code == 200


async def delete(other: Running, tokens: dict[str, Any]) -> None:
    path = f"/admin/users/{tokens['user']['id']}"
    assert (await other.send("DELETE", path, await other.log_in("root"))).status_code == 204


ENDINGS: dict[str, tuple[Callable[..., Awaitable[object]], str]] = {
    "end all": (end_all, "revoked_by_user"),
    "logout": (log_out, "logout"),
    "disabling": (disable, "user_disabled"),
    "deletion": (delete, "user_deleted"),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.requirement("ASVS 7.4.1, .2, .5")
async def test_no_write_of_an_ended_session_lands(
    make_settings: Callable[..., Settings], clock: FakeClock, ending: str
):
    """Fails without the check of the session in Actors, because this process hasn't learned of the ending."""
    end, reason = ENDINGS[ending]
    async with two_processes(make_settings, clock) as (service, other):
        await service.administrator()
        session = (await service.sign_up())["session_id"]
        tokens = await service.log_in()
        await end(other, tokens)
        before = state(service)
        names = {"session": session, "current": tokens["session_id"]}
        answers = {name: await send(service, write, tokens, **names) for name, write in OWN.items()}
        told = {name: refusal(answer) for name, answer in answers.items()}
        assert told == dict.fromkeys(OWN, (401, "session_revoked", reason))
        assert state(service) == before


async def lined_up(service: Running, tasks: list[asyncio.Task]) -> None:
    """Wait until each request either waits for a row, or needs none and is done."""
    query = (
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' "
        "and datname = current_database()"
    )
    while True:
        [(waiting,)] = await asyncio.to_thread(service.rows, query)
        if waiting + sum(task.done() for task in tasks) >= len(tasks):
            return


@pytest.mark.engines("postgresql")
@pytest.mark.parametrize("ending", ["end all", "disabling", "deletion"])
@pytest.mark.requirement("ASVS 7.4.2")
async def test_of_16_writes_under_way_none_lands_after_the_ending(
    make_settings: Callable[..., Settings], clock: FakeClock, ending: str
):
    """Fails without the lock of the caller's row in Actors, or if the session is read before the lock."""
    async with two_processes(make_settings, clock) as (service, other):
        session = (await service.sign_up())["session_id"]
        tokens = await service.log_in()
        user_id, now = id_of("user", tokens["user"]["id"]), clock()
        writes = [OWN[name] for name in OWN if name not in ("password", "wrong password", "reauthentication")]
        some = (writes * UNDER_WAY)[:UNDER_WAY]
        names = {"session": session, "current": tokens["session_id"]}
        async with other.container.store.begin() as tx:
            # The work of these operations, up to their commit.
            changes = {"disabling": {"disabled_at": now}, "deletion": {"deleted_at": now}}.get(ending, {})
            await tx.users.bump_credential_version(user_id, **changes)
            under_way = [asyncio.create_task(send(service, write, tokens, **names)) for write in some]
            await lined_up(service, under_way)
            await tx.sessions.revoke(
                user_id, await tx.sessions.active_ids(user_id, now), "revoked_by_user", now
            )
        before = state(service)
        answers = await asyncio.gather(*under_way)
        assert {refusal(answer) for answer in answers} == {(401, "session_revoked", "revoked_by_user")}
        assert state(service) == before


async def checked_early(service: Running, number: int, start: Callable[[], list[asyncio.Task]]) -> list:
    """Start requests, and wait until each of them has passed the check of its route."""
    reads: list[str] = []

    def note(connection, cursor, statement, parameters, *rest):
        reads.append(statement)

    engine = service.container.store._reader.sync_engine
    sa.event.listen(engine, "after_cursor_execute", note)
    tasks = start()
    while len(reads) < number:
        await asyncio.sleep(0)
    sa.event.remove(engine, "after_cursor_execute", note)
    return tasks


@pytest.mark.parametrize("how", ["demotion", "disabling"])
@pytest.mark.requirement("ASVS 8.3.2")
async def test_of_16_writes_of_an_administrator_none_lands_after_the_role_is_gone(
    make_settings: Callable[..., Settings], clock: FakeClock, how: str
):
    """Fails without the check of the role in Actors: the early check has let all of them in."""
    async with two_processes(make_settings, clock) as (service, other):
        # The user signs up before the administrator, because rows are locked in the order of their ids.
        user = await service.sign_up()
        root = await service.administrator()
        user_id, root_id, now = id_of("user", user["user"]["id"]), id_of("user", root["user"]["id"]), clock()
        names = {"user": user["user"]["id"], "session": user["session_id"], "admin": root["user"]["id"]}
        writes = (list(ADMIN.values()) * UNDER_WAY)[:UNDER_WAY]
        async with other.container.store.begin() as tx:
            await tx.users.lock({user_id, root_id})
            under_way = await checked_early(
                service,
                UNDER_WAY,
                lambda: [asyncio.create_task(send(service, write, root, **names)) for write in writes],
            )
            if how == "demotion":
                await tx.users.change(root_id, roles=[])
            else:
                await tx.users.bump_credential_version(root_id, disabled_at=now)
                await tx.sessions.revoke(
                    root_id, await tx.sessions.active_ids(root_id, now), "user_disabled", now
                )
        before = state(service)
        answers = await asyncio.gather(*under_way)
        expected = {
            "demotion": (403, "forbidden", None),
            "disabling": (401, "session_revoked", "user_disabled"),
        }
        assert {refusal(answer) for answer in answers} == {expected[how]}
        assert state(service) == before


@pytest.mark.requirement("ASVS 8.3.2")
async def test_a_change_of_several_fields_is_whole_or_not_at_all(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if each field of PATCH /admin/users/{id} is changed in a separate transaction."""
    async with running(make_settings(), clock) as service:
        user, root = await service.sign_up(), await service.administrator()
        path = f"/admin/users/{root['user']['id']}"
        body = {"roles": [], "disabled": True, "locked": False}
        assert (await service.send("PATCH", path, root, body)).status_code == 200
        kinds = [
            kind for (kind,) in service.rows("select kind from events where kind like 'user.%' order by id")
        ]
        assert sorted(kinds[-2:]) == ["user.changed", "user.disabled"]
        assert (await service.get("/protected", user)).status_code == 200
        await service.container.accounts.enable(id_of("user", root["user"]["id"]), OPERATOR)
        await service.set_roles("root", ["admin"])
        root = await service.log_in("root")
        before = state(service)
        body = {"claims": {"x": "y" * 5000}, "disabled": True}
        answer = await service.send("PATCH", f"/admin/users/{user['user']['id']}", root, body)
        assert refusal(answer)[:2] == (422, "validation_failed")
        assert state(service) == before


@pytest.mark.parametrize("transport", ["body", "cookie"])
@pytest.mark.requirement("ASVS 7.2.4")
async def test_a_confirmed_password_gives_the_session_a_new_secret(service: Running, transport: str):
    """Fails without renew_secret in Users.reauthenticate: a copied token would get the recent login too."""
    body = {"username": "ada", "password": PASSWORD, "transport": transport}
    answer = await service.client.post("/signup", json=body)
    service.client.cookies.clear()
    old = refresh_token(answer)
    service.clock.move(301)
    answer = await renewed(service, old, transport)
    old, mine = refresh_token(answer) or old, answer.json()
    confirmed = await service.send("POST", REAUTHENTICATE, mine, {"password": PASSWORD})
    service.client.cookies.clear()
    assert confirmed.status_code == 200
    fresh = refresh_token(confirmed)
    assert fresh
    assert fresh != old
    assert confirmed.json()["session_id"] == mine["session_id"]
    copied = await renewed(service, old, transport)
    assert refusal(copied) == (401, "invalid_refresh_token", None)
    recent = await renewed(service, fresh, transport)
    deleted = await service.send("DELETE", "/me", recent.json())
    assert deleted.status_code == 204


def refresh_token(answer: httpx.Response) -> str:
    return answer.cookies.get("__Host-session") or answer.json().get("refresh_token", "")


async def renewed(service: Running, token: str, transport: str) -> httpx.Response:
    if transport == "body":
        return await service.refresh(token)
    return await service.client.post("/refresh", headers={"Cookie": f"__Host-session={token}"})
