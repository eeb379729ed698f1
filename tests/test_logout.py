"""Logging out by refresh token, cookie or access token, in each of their states."""

import asyncio
from collections.abc import Callable

import httpx
import pytest

from sessionapi import ids
from sessionapi.settings import Settings
from tests.support.api_client import PASSWORD, bearer, refusal
from tests.support.app import Running, running
from tests.support.clock import FakeClock

COOKIE = {"username": "ada", "password": PASSWORD, "transport": "cookie"}


def reasons(service: Running) -> list[str | None]:
    return [reason for (reason,) in service.rows("select revoke_reason from sessions order by id")]


async def test_logout_by_refresh_token_ends_this_session_alone(service: Running):
    tokens, other = await service.sign_up(), await service.log_in()
    answer = await service.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})
    assert (answer.status_code, answer.content) == (204, b"")
    assert reasons(service) == ["logout", None]
    assert refusal(await service.get("/protected", tokens)) == (401, "session_revoked", "logout")
    assert (await service.get("/protected", other)).status_code == 200
    assert service.rows("select kind, details from events order by id desc limit 1") == [
        ("session.ended", '{"reason": "logout"}')
    ]


async def test_a_token_of_any_generation_logs_out(service: Running):
    tokens = newest = await service.sign_up()
    for _ in range(2):
        service.clock.move(600)
        newest = (await service.refresh(newest)).json()
    assert newest["generation"] == 2
    answer = await service.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})
    assert answer.status_code == 204
    assert reasons(service) == ["logout"]


@pytest.mark.parametrize("late", [0, 61, 86_400])
async def test_logout_by_access_token_works_past_its_end_too(service: Running, late):
    tokens = await service.sign_up()
    service.clock.move(late)
    assert (await service.client.post("/logout", headers=bearer(tokens))).status_code == 204
    assert reasons(service) == ["logout"]


async def test_logging_out_twice_is_no_error_and_told_once(service: Running):
    tokens = await service.sign_up()
    for _ in range(2):
        assert (await service.client.post("/logout", headers=bearer(tokens))).status_code == 204
        answer = await service.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})
        assert answer.status_code == 204
    assert service.rows("select count(*) from events where kind = 'session.ended'") == [(1,)]


async def test_an_unknown_refresh_token_is_no_error_and_nothing_at_all_is_one(service: Running):
    answer = await service.client.post("/logout", json={"refresh_token": "sr_garbage"})
    assert answer.status_code == 204
    assert refusal(await service.client.post("/logout")) == (401, "missing_token", None)
    assert refusal(await service.client.post("/logout", headers=bearer("garbage"))) == (
        401,
        "invalid_token",
        None,
    )


async def test_logout_by_cookie_clears_it_and_a_refresh_never_does(service: Running):
    cookie = (await service.client.post("/signup", json=COOKIE)).cookies["__Host-session"]
    headers = {"Cookie": f"__Host-session={cookie}"}
    answer = await service.client.post("/logout", headers=headers)
    assert answer.status_code == 204
    cleared = answer.headers["set-cookie"]
    assert cleared.startswith('__Host-session="";')
    assert "Max-Age=0" in cleared
    assert "Secure" in cleared
    assert "Path=/" in cleared
    assert reasons(service) == ["logout"]
    failing = [
        headers,
        {"Cookie": "__Host-session=sr_garbage"},
        {**headers, "Origin": "https://evil.example"},
        {**headers, "Idempotency-Key": " "},
    ]
    for each in failing:
        refused = await service.client.post("/refresh", headers=each)
        assert refused.status_code >= 400
        assert "set-cookie" not in refused.headers


async def test_the_cookie_is_set_with_rotations_and_repeats_and_not_with_renewals(service: Running):
    signed_up = await service.client.post("/signup", json=COOKIE)
    assert "refresh_token" not in signed_up.json()
    set_at_login = signed_up.headers["set-cookie"]
    for part in ("HttpOnly", "Secure", "SameSite=lax", "Path=/", f"Max-Age={30 * 86_400}"):
        assert part in set_at_login
    assert "Domain" not in set_at_login
    old = {"Cookie": f"__Host-session={signed_up.cookies['__Host-session']}"}
    renewed = await service.client.post("/refresh", headers=old)
    assert renewed.status_code == 200
    assert "set-cookie" not in renewed.headers
    service.clock.move(600)
    rotated = await service.client.post("/refresh", headers=old)
    repeated = await service.client.post("/refresh", headers=old)
    assert rotated.cookies["__Host-session"] == repeated.cookies["__Host-session"]
    assert f"Max-Age={30 * 86_400 - 600}" in rotated.headers["set-cookie"]
    assert "refresh_token" not in rotated.json()


async def test_a_login_that_is_not_remembered_sets_a_cookie_of_the_browser_session(service: Running):
    answer = await service.client.post("/signup", json={**COOKIE, "remember": False})
    assert "Max-Age" not in answer.headers["set-cookie"]
    assert "expires" not in answer.headers["set-cookie"].lower()


async def log_out(service: Running, *, access: str = "", body: str = "", cookie: str = "") -> httpx.Response:
    headers = {
        **(bearer(access) if access else {}),
        **({"Cookie": f"__Host-session={cookie}"} if cookie else {}),
    }
    return await service.client.post(
        "/logout", headers=headers, json={"refresh_token": body} if body else None
    )


async def test_a_good_access_token_logs_out_next_to_a_bad_refresh_token(service: Running):
    """Fails if only the first credential counts: the response was a 204, and the session stayed active."""
    for number in range(2):
        tokens = await (service.log_in() if number else service.sign_up())
        bad = {"body": "sr_garbage"} if number else {"cookie": "garbage"}
        assert (await log_out(service, access=tokens["access_token"], **bad)).status_code == 204
        assert reasons(service) == ["logout"] * (number + 1)


async def test_logout_ends_the_session_of_every_good_credential(service: Running):
    """Three users' credentials in one request. Fails if one of them is left out."""
    access = (await service.sign_up())["access_token"]
    body = (await service.sign_up("bob"))["refresh_token"]
    signed_up = await service.client.post("/signup", json={**COOKIE, "username": "eve"})
    service.client.cookies.clear()
    other = await service.log_in("eve")
    answer = await log_out(service, access=access, body=body, cookie=signed_up.cookies["__Host-session"])
    assert answer.status_code == 204
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert reasons(service) == ["logout", "logout", "logout", None]
    assert (await service.get("/protected", other)).status_code == 200


async def test_logout_is_refused_only_if_no_credential_is_good(service: Running):
    """An unknown refresh token alone is accepted (RFC 7009); a bad access token next to it is an error."""
    tokens = await service.sign_up()
    invalid = (401, "invalid_token", None)
    assert refusal(await log_out(service, access="garbage", body="sr_garbage")) == invalid
    answer = await log_out(service, access="garbage", cookie="garbage")
    assert refusal(answer) == invalid
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert reasons(service) == [None]
    assert (await log_out(service, access="garbage", body=tokens["refresh_token"])).status_code == 204
    assert reasons(service) == ["logout"]
    assert (await log_out(service, access="garbage", body=tokens["refresh_token"])).status_code == 204


async def test_an_access_token_under_a_key_that_is_new_logs_out(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without `_look_for` in Authenticator.genuine: this process has not loaded the key yet."""
    async with (
        running(make_settings(revocation_poll=10), clock) as service,
        running(make_settings(), clock) as other,
    ):
        await other.container.keys.rotate_now()
        await other.container.keys.load()
        tokens = await other.sign_up()
        assert (await log_out(service, access=tokens["access_token"])).status_code == 204
        assert reasons(service) == ["logout"]


async def test_a_logout_of_an_ended_session_waits_for_no_writer(service: Running):
    """Fails without the read in `Sessions.log_out`: tokens of ended sessions kept the writer busy."""
    tokens = await service.sign_up()
    body = {"refresh_token": tokens["refresh_token"]}
    assert (await service.client.post("/logout", json=body)).status_code == 204
    user_id = ids.parse("user", tokens["user"]["id"])
    async with service.container.store.begin() as tx:
        await tx.users.lock({user_id})
        by_refresh_token = asyncio.create_task(service.client.post("/logout", json=body))
        by_access_token = asyncio.create_task(service.client.post("/logout", headers=bearer(tokens)))
        done, waiting = await asyncio.wait([by_refresh_token, by_access_token], timeout=5)
    answers = await asyncio.gather(by_refresh_token, by_access_token)
    assert [answer.status_code for answer in answers] == [204, 204]
    assert len(done) == 2 and not waiting
