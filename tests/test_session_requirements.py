"""ASVS 7, RFC 9700: how sessions start, last and end, and who may administer them."""

import asyncio
from base64 import urlsafe_b64decode

import pytest

from sessionapi.sessions.actors import OPERATOR
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running, running

ORIGIN = {"Origin": "http://localhost:8000"}
BY_COOKIE = {"username": "ada", "password": PASSWORD, "transport": "cookie"}
DAY = 86_400


@pytest.mark.requirement("ASVS 7.2.3")
async def test_refresh_tokens_hold_128_unguessable_bits(service: Running):
    """Fails with a session secret of fewer bytes, or with one that is derived from known values."""
    await service.sign_up()
    tokens = [(await service.log_in())["refresh_token"].removeprefix("sr_") for _ in range(90)]
    raw = [urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in tokens]
    secrets = [each[-48:-32] for each in raw]
    assert len(set(secrets)) == len(raw)
    bits = [sum(secret[at // 8] >> at % 8 & 1 for secret in secrets) for at in range(128)]
    assert all(10 < ones < 80 for ones in bits), "each of the 128 bits is now 0, now 1"


@pytest.mark.requirement("ASVS 7.2.4")
async def test_a_login_adopts_nothing_and_ends_what_it_replaces(service: Running):
    """Fails without `replaces` in the login, or if any session is taken over from the request."""
    first = await service.client.post("/signup", json=BY_COOKIE, headers=ORIGIN)
    mine = {**ORIGIN, "Cookie": f"__Host-session={first.cookies['__Host-session']}"}
    second = await service.client.post("/login", json=BY_COOKIE, headers=mine)
    assert second.json()["session_id"] != first.json()["session_id"]
    assert refusal(await service.get("/protected", first.json())) == (401, "session_revoked", "replaced")
    planted = {**ORIGIN, "Cookie": f"__Host-session={second.cookies['__Host-session'][:-4]}AAAA"}
    third = await service.client.post("/login", json=BY_COOKIE, headers=planted)
    assert third.json()["session_id"] not in (first.json()["session_id"], second.json()["session_id"])
    assert (await service.get("/protected", second.json())).status_code == 200


@pytest.mark.parametrize(
    ("remember", "idle", "absolute"), [(True, 7 * DAY, 30 * DAY), (False, DAY // 2, DAY)]
)
@pytest.mark.requirement("ASVS 7.3.1, .2")
async def test_idle_and_absolute_ends_are_exact_to_the_second(
    service: Running, remember: bool, idle: int, absolute: int
):
    """Fails with `<` instead of `<=` in policy.ended."""
    alive, dead = (await service.sign_up(remember=remember)), await service.log_in(remember=remember)
    service.clock.move(idle - 1)
    alive = (await service.refresh(alive)).json()
    service.clock.move(1)
    assert refusal(await service.refresh(dead)) == (401, "session_expired", "idle")
    spent = idle
    while spent < absolute - 1:
        step = min(idle - 2, absolute - 1 - spent)
        service.clock.move(step)
        spent += step
        answer = await service.refresh(alive)
        assert answer.status_code == 200
        alive = answer.json()
    assert alive["expires_in"] == 1
    service.clock.move(1)
    assert refusal(await service.refresh(alive)) == (401, "session_expired", "absolute")
    assert refusal(await service.get("/protected", alive))[1] in ("expired_token", "session_expired")


@pytest.mark.requirement("ASVS 7.4.1, .2, .5")
async def test_logout_disabling_deletion_and_the_administrator_end_sessions_at_once(
    service: Running,
):
    """Fails without Revocations.add in any of the four operations."""
    root = await service.administrator()
    path = f"/admin/users/{(await service.sign_up())['user']['id']}"
    calls = {
        "logout": lambda it: service.send("POST", "/logout", it),
        "revoked_by_admin": lambda _: service.send("DELETE", f"{path}/sessions", root),
        "user_disabled": lambda _: service.send("PATCH", path, root, {"disabled": True}),
        "user_deleted": lambda _: service.send("DELETE", path, root),
    }
    for reason, call in calls.items():
        await service.send("PATCH", path, root, {"disabled": False})
        tokens = await service.log_in()
        assert (await call(tokens)).status_code in (200, 204)
        assert refusal(await service.get("/protected", tokens)) == (401, "session_revoked", reason)
        assert refusal(await service.refresh(tokens))[:2] == (401, "session_revoked")


@pytest.mark.requirement("ASVS 7.4.5")
async def test_an_administrator_ends_all_sessions_with_one_mark(make_settings, clock):
    """Fails without the mark in storage.sessions.active_at, or in Revocations.reason."""
    async with running(make_settings(), clock) as here, running(make_settings(), clock) as there:
        old = [await here.sign_up("ada"), await there.log_in("ada"), await there.sign_up("bob")]
        assert await here.container.all_sessions.revoke("revoked_by_admin") == 3
        for each in old:  # no refresh, at once and in every process; no access token after the next poll
            assert refusal(await there.refresh(each)) == (401, "session_revoked", "revoked_by_admin")
        new = await there.log_in("ada")
        await there.container.state_sync.sync()
        for service in (here, there):
            for each in old:
                answer = await service.get("/protected", each)
                assert refusal(answer) == (401, "session_revoked", "revoked_by_admin")
            assert (await service.get("/protected", new)).status_code == 200


@pytest.mark.requirement("ASVS 7.5.1, .2")
async def test_1_sensitive_changes_need_a_recent_login_or_the_password(service: Running):
    """Fails without the check of a recent login. A password change requires the password itself."""
    tokens = await service.sign_up()
    service.clock.move(301)
    tokens = (await service.refresh(tokens)).json()
    sensitive = [("PATCH", {"username": "countess"}), ("PATCH", {"email": "a@example.com"}), ("DELETE", None)]
    for method, body in sensitive:
        answer = await service.send(method, "/me", tokens, body)
        assert refusal(answer)[:2] == (403, "reauthentication_required")
    answer = await service.send("POST", "/sessions/current/reauthenticate", tokens, {"password": PASSWORD})
    for method, body in sensitive:
        assert (await service.send(method, "/me", answer.json(), body)).status_code in (200, 204)


@pytest.mark.requirement("ASVS 7.5.1, .2")
async def test_2_a_user_sees_and_ends_sessions(service: Running):
    tokens, other = await service.sign_up(), await service.log_in(device_name="a phone")
    listed = (await service.get("/sessions", tokens)).json()["items"]
    assert [each["device_name"] for each in listed] == ["a phone", "Python HTTPX"]
    assert [each["current"] for each in listed] == [False, True]
    assert (await service.send("DELETE", f"/sessions/{other['session_id']}", tokens)).status_code == 204
    assert refusal(await service.get("/protected", other))[1:] == ("session_revoked", "revoked_by_user")


@pytest.mark.requirement("RFC 9700")
async def test_refresh_tokens_rotate_and_reuse_ends_the_session(service: Running):
    """Fails without the last line of policy.decide."""
    stolen = await service.sign_up()
    service.clock.move(600)
    mine = (await service.refresh(stolen)).json()
    assert mine["refresh_token"] != stolen["refresh_token"]
    service.clock.move(11)
    assert refusal(await service.refresh(stolen))[:2] == (401, "refresh_token_reused")
    assert refusal(await service.refresh(mine)) == (401, "session_revoked", "refresh_reuse")
    assert refusal(await service.get("/protected", mine)) == (401, "session_revoked", "refresh_reuse")


@pytest.mark.requirement("admin")
async def test_the_role_is_read_from_the_live_row(service: Running):
    """Fails if the role is read from the token, which names it for another minute."""
    root = await service.administrator()
    assert (await service.get("/admin/users", root)).status_code == 200
    await service.set_roles("root", [])
    assert refusal(await service.get("/admin/users", root))[:2] == (403, "forbidden")
    user = await service.container.accounts.find("root")
    await service.container.accounts.disable(user.id, OPERATOR)
    assert refusal(await service.get("/admin/users", root))[0] == 401


@pytest.mark.requirement("identity")
async def test_one_name_in_any_case_and_width_and_composition(service: Running):
    """Fails without NFKC or casefold in identifiers.parse_name, or without the unique index."""
    names = ["Alice", "alice", "ALICE", "Ａlice", "ａｌｉｃｅ"]
    answers = await asyncio.gather(
        *(service.client.post("/signup", json={"username": each, "password": PASSWORD}) for each in names)
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    for name in names:
        assert (await service.log_in(name))["user"]["username"].casefold() == "alice"
