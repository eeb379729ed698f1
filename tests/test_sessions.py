"""The list of devices, ending one or all, the limit, and the sessions that a login replaces."""

import asyncio
from dataclasses import asdict

import pytest
import sqlalchemy as sa

from sessionapi import ids
from sessionapi.storage.tables import sessions
from tests.support.api_client import bearer, refusal
from tests.support.app import Running, running

FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
NOT_FOUND = (404, "not_found", None)


def reasons(service: Running) -> list[str | None]:
    return [reason for (reason,) in service.rows("select revoke_reason from sessions order by id")]


async def test_a_user_sees_living_sessions_and_never_a_token(service: Running):
    first = await service.sign_up()
    service.client.headers["User-Agent"] = FIREFOX
    service.clock.move(5)
    second = await service.log_in(remember=False)
    await service.sign_up("bob")
    answer = await service.get("/sessions", second)
    assert answer.headers["cache-control"] == "no-store"
    items = answer.json()["items"]
    assert [(item["id"], item["current"]) for item in items] == [
        (second["session_id"], True),
        (first["session_id"], False),
    ]
    assert items[0]["device_name"] == "Firefox on Linux"
    assert items[0]["created_at"] == "2026-11-24T09:00:05Z"
    assert items[0]["idle_expires_at"] == "2026-11-24T21:00:05Z"
    assert items[0]["expires_at"] == "2026-11-25T09:00:05Z"
    assert "sr_" not in answer.text
    assert set(items[0]) == {
        "id",
        "current",
        "device_name",
        "ip",
        "created_at",
        "last_seen_at",
        "idle_expires_at",
        "expires_at",
    }


async def test_an_ended_or_expired_session_is_not_listed(service: Running):
    first = await service.sign_up()
    await service.log_in(remember=False)
    third = await service.log_in()
    await service.client.post("/logout", json={"refresh_token": first["refresh_token"]})
    service.clock.move(13 * 3600)
    third = (await service.refresh(third)).json()
    items = (await service.get("/sessions", third)).json()["items"]
    assert [item["id"] for item in items] == [third["session_id"]]


async def test_ten_thousand_sessions_are_paged(make_settings, clock):
    async with running(make_settings(sessions_per_user=20_000), clock) as service:
        tokens = await service.sign_up()
        user = await service.container.accounts.find("ada")
        async with service.container.store.begin() as tx:
            like = (await tx.sessions.active(user.id, clock(), 1))[0]
            row = {**asdict(like), "amr": ["pwd"]}
            many = [{**row, "id": ids.new_id(), "secret_digest": bytes(32)} for _ in range(9_999)]
            await tx.connection.execute(sa.insert(sessions), many)
        seen: list[str] = []
        cursor = None
        while True:
            path = "/sessions?limit=100" + (f"&cursor={cursor}" if cursor else "")
            page = (await service.get(path, tokens)).json()
            seen += [item["id"] for item in page["items"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert len(seen) == len(set(seen)) == 10_000
        assert seen[-1] == tokens["session_id"]
        answer = await service.send("DELETE", "/sessions", tokens)
        assert answer.json() == {"revoked": 10_000}


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=nonsense", "cursor=user_01"])
async def test_a_wrong_page_is_told_so(service: Running, query):
    tokens = await service.sign_up()
    assert refusal(await service.get(f"/sessions?{query}", tokens)) == (422, "validation_failed", None)


async def test_ending_one_session_refuses_its_tokens_at_once(service: Running):
    """Fails without Revocations.add after the commit in Sessions.end."""
    first, second = await service.sign_up(), await service.log_in()
    assert (await service.send("DELETE", f"/sessions/{first['session_id']}", second)).status_code == 204
    ended = (401, "session_revoked", "revoked_by_user")
    assert refusal(await service.get("/protected", first)) == ended
    assert refusal(await service.refresh(first)) == ended
    assert (await service.get("/protected", second)).status_code == 200


async def test_what_is_not_a_living_session_of_mine_is_not_found_with_nothing_learnt(service: Running):
    """Fails without the user_id in the condition of the revocation."""
    mine, other = await service.sign_up(), await service.sign_up("bob")
    ended = await service.log_in()
    await service.client.post("/logout", json={"refresh_token": ended["refresh_token"]})
    bodies = []
    for name in (
        other["session_id"],
        ended["session_id"],
        ids.public("sess", ids.new_id()),
        mine["user"]["id"],
        mine["session_id"].upper(),
        "nonsense",
        "sess_",
        "%00",
    ):
        answer = await service.send("DELETE", f"/sessions/{name}", mine)
        assert refusal(answer) == NOT_FOUND
        bodies.append({key: value for key, value in answer.json().items() if key != "request_id"})
    assert all(body == bodies[0] for body in bodies)
    assert (await service.get("/protected", other)).status_code == 200


async def test_ending_all_sessions_ends_this_one_too_unless_it_is_kept(service: Running):
    first, second, other = await service.sign_up(), await service.log_in(), await service.sign_up("bob")
    third = await service.log_in()
    answer = await service.send("DELETE", "/sessions?keep_current=true", second)
    assert answer.json() == {"revoked": 2}
    assert (await service.refresh(second)).status_code == 200
    assert refusal(await service.refresh(first)) == (401, "session_revoked", "revoked_by_user")
    assert (await service.send("DELETE", "/sessions", second)).json() == {"revoked": 1}
    for tokens in (second, third):
        assert refusal(await service.get("/protected", tokens)) == (401, "session_revoked", "revoked_by_user")
    assert (await service.refresh(other)).status_code == 200


async def test_one_login_over_the_limit_ends_the_least_recently_seen_session(make_settings, clock):
    """Fails without least_recently_seen in Sessions.start."""
    async with running(make_settings(sessions_per_user=3), clock) as service:
        first = await service.sign_up()
        for _ in range(2):
            clock.move(60)
            await service.log_in()
        clock.move(700)
        assert (await service.refresh(first)).status_code == 200
        await service.log_in()
        assert reasons(service) == [None, "session_limit", None, None]
        assert ("session.ended", '{"reason": "session_limit"}') in service.rows(
            "select kind, details from events"
        )


@pytest.mark.requirement("ASVS 7.2.4")
async def test_a_login_over_a_cookie_starts_a_new_session_and_ends_the_old(service: Running):
    """Fails without Sessions._replaced."""
    body = {"username": "ada", "password": "correct horse battery", "transport": "cookie"}
    first = await service.client.post("/signup", json=body)
    old = first.cookies["__Host-session"]
    second = await service.client.post("/login", json=body, headers={"Cookie": f"__Host-session={old}"})
    assert second.json()["session_id"] != first.json()["session_id"]
    assert reasons(service) == ["replaced", None]
    assert refusal(await service.get("/protected", first.json())) == (401, "session_revoked", "replaced")
    refused = await service.client.post("/refresh", headers={"Cookie": f"__Host-session={old}"})
    assert refusal(refused) == (401, "session_revoked", "replaced")
    assert "set-cookie" not in refused.headers


async def test_a_sign_up_over_a_cookie_ends_the_session_whose_cookie_it_overwrites(service: Running):
    """Fails if only /login passes on the replaced session: no client could log out of that one."""
    body = {"username": "ada", "password": "correct horse battery", "transport": "cookie"}
    old = (await service.client.post("/signup", json=body)).cookies["__Host-session"]
    headers = {"Cookie": f"__Host-session={old}"}
    taken = await service.client.post("/signup", json=body, headers=headers)
    assert refusal(taken) == (409, "username_taken", None)
    assert reasons(service) == [None]
    await service.client.post("/signup", json={**body, "username": "bob"}, headers=headers)
    assert reasons(service) == ["replaced", None]


@pytest.mark.requirement("ASVS 7.2.4")
async def test_a_planted_or_foreign_cookie_is_never_adopted(service: Running):
    body = {"username": "ada", "password": "correct horse battery", "transport": "cookie"}
    ada = await service.client.post("/signup", json=body)
    mallory = await service.client.post("/signup", json={**body, "username": "mallory"})
    planted = mallory.cookies["__Host-session"]
    for text in (planted, "sr_garbage", f"{ada.cookies['__Host-session'][:-4]}AAAA"):
        answer = await service.client.post("/login", json=body, headers={"Cookie": f"__Host-session={text}"})
        assert answer.json()["user"]["username"] == "ada"
        assert answer.cookies["__Host-session"] != text
        assert answer.json()["session_id"] not in (ada.json()["session_id"], mallory.json()["session_id"])
    assert reasons(service)[:2] == [None, "replaced"]
    assert (await service.get("/protected", ada.json())).status_code == 200


async def test_a_failed_login_over_a_cookie_ends_nothing(service: Running):
    body = {"username": "ada", "password": "correct horse battery", "transport": "cookie"}
    old = (await service.client.post("/signup", json=body)).cookies["__Host-session"]
    answer = await service.client.post(
        "/login", json={**body, "password": "wrong horse"}, headers={"Cookie": f"__Host-session={old}"}
    )
    assert refusal(answer) == (401, "invalid_credentials", None)
    assert "set-cookie" not in answer.headers
    assert reasons(service) == [None]


async def test_this_session_tells_when_it_ends_and_keeps_small_data(service: Running):
    tokens = await service.sign_up()
    body = {"data": {"tab": "inbox", "view": {"sort": "date", "size": 20}}, "device_name": "Ada's laptop"}
    answer = await service.send("PATCH", "/sessions/current", tokens, body)
    assert answer.json()["data"] == body["data"]
    patch = {"data": {"tab": None, "view": {"size": 50}}}
    await service.send("PATCH", "/sessions/current", tokens, patch)
    current = (await service.get("/sessions/current", tokens)).json()
    assert current["data"] == {"view": {"sort": "date", "size": 50}}
    assert (current["device_name"], current["current"]) == ("Ada's laptop", True)
    assert current["auth_time"] == "2026-11-24T09:00:00Z"
    await service.client.post("/logout", headers=bearer(tokens))
    assert service.rows("select * from session_data") == []


async def test_twenty_patches_at_once_lose_nothing(service: Running):
    """Fails without the lock in Sessions.update."""
    tokens = await service.sign_up()
    await asyncio.gather(
        *(
            service.send("PATCH", "/sessions/current", tokens, {"data": {f"member{number}": number}})
            for number in range(20)
        )
    )
    data = (await service.get("/sessions/current", tokens)).json()["data"]
    assert data == {f"member{number}": number for number in range(20)}


def deep(levels: int) -> dict:
    value: dict = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "content",
    [
        b'{"data": {"text": "' + b"x" * 4096 + b'"}}',
        b'{"data": {"text": "a\\u0000b"}}',
        b'{"data": {"text": "\\ud800"}}',
        b'{"data": []}',
        b'{"data": {"n": 1e999}}',
        b'{"device_name": ""}',
        b'{"surprise": 1}',
        str({"data": deep(40)}).replace("'", '"').encode(),
    ],
)
async def test_data_that_can_not_be_kept_is_refused_and_changes_nothing(service: Running, content):
    tokens = await service.sign_up()
    await service.send("PATCH", "/sessions/current", tokens, {"data": {"kept": True}})
    headers = {**bearer(tokens), "Content-Type": "application/json"}
    answer = await service.client.patch("/sessions/current", content=content, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert (await service.get("/sessions/current", tokens)).json()["data"] == {"kept": True}


async def test_a_token_that_is_still_good_opens_no_data_of_a_session_past_its_end(make_settings, clock):
    """The row decides. Fails without ensure_active in Sessions.current and Sessions.update."""
    async with running(make_settings(), clock) as service:
        tokens = await service.sign_up()
        async with running(make_settings(), clock) as other:
            await other.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})
        for method in ("GET", "PATCH"):
            answer = await service.send(
                method, "/sessions/current", tokens, {} if method == "PATCH" else None
            )
            assert refusal(answer) == (401, "session_revoked", "logout")
