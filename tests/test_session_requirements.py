"""ASVS 7, RFC 9700: how sessions start, last and end, and who may administer them."""

import asyncio
from base64 import urlsafe_b64decode

import pytest

from sessionapi.sessions.actors import OPERATOR
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running, running


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
