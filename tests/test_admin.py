"""Administration over HTTP: the role is read from the current row, and a recent login is required."""

import jwt
import pytest

from sessionapi import ids
from sessionapi.sessions.actors import OPERATOR
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running

FORBIDDEN = (403, "forbidden", None)
NOT_FOUND = (404, "not_found", None)


def routes(user: str, session: str) -> list[tuple[str, str]]:
    return [
        ("GET", "/admin/users"),
        ("GET", f"/admin/users/{user}"),
        ("PATCH", f"/admin/users/{user}"),
        ("DELETE", f"/admin/users/{user}"),
        ("GET", f"/admin/users/{user}/sessions"),
        ("DELETE", f"/admin/users/{user}/sessions"),
        ("DELETE", f"/admin/users/{user}/sessions/{session}"),
        ("GET", "/admin/events"),
    ]


async def refused_everywhere(service: Running, tokens: dict, expected: tuple) -> None:
    victim = await service.log_in("ada")
    for method, path in routes(victim["user"]["id"], victim["session_id"]):
        body = {"disabled": True} if method == "PATCH" else None
        assert refusal(await service.send(method, path, tokens, body)) == expected, path
    assert (await service.refresh(victim)).status_code == 200


async def test_without_the_role_every_route_is_forbidden(service: Running):
    """Fails without the check of the role in Actors."""
    await refused_everywhere(service, await service.sign_up(), FORBIDDEN)


async def test_a_demoted_administrator_is_refused_at_once_though_the_token_names_the_role(service: Running):
    """Fails if the role is read from the token."""
    await service.sign_up()
    admin = await service.administrator()
    assert jwt.decode(admin["access_token"], options={"verify_signature": False})["roles"] == ["admin"]
    await service.set_roles("root", [])
    await refused_everywhere(service, admin, FORBIDDEN)


async def test_a_disabled_administrator_is_refused_at_once(service: Running):
    await service.sign_up()
    admin = await service.administrator()
    user = await service.container.accounts.find("root")
    await service.container.accounts.disable(user.id, OPERATOR)
    await refused_everywhere(service, admin, (401, "session_revoked", "user_disabled"))


async def test_an_old_login_has_to_be_confirmed(service: Running):
    """Fails without the check of a recent login."""
    await service.sign_up()
    admin = await service.administrator()
    service.clock.move(301)
    admin = (await service.refresh(admin)).json()
    await refused_everywhere(service, admin, (403, "reauthentication_required", None))
    path = "/sessions/current/reauthenticate"
    admin = (await service.send("POST", path, admin, {"password": PASSWORD})).json()
    assert (await service.get("/admin/users", admin)).status_code == 200


async def test_users_are_paged_the_oldest_first(service: Running):
    admin = await service.administrator()
    for name in ("ada", "bob", "eve"):
        await service.sign_up(name)
    first = (await service.get("/admin/users?limit=3", admin)).json()
    second = (await service.get(f"/admin/users?limit=3&cursor={first['next_cursor']}", admin)).json()
    names = [item["username"] for item in first["items"] + second["items"]]
    assert names == ["root", "ada", "bob", "eve"]
    assert second["next_cursor"] is None
    assert "argon2" not in str(first)


async def test_disabling_ends_the_sessions_and_enabling_lets_the_user_in_again(service: Running):
    admin, tokens = await service.administrator(), await service.sign_up()
    path = f"/admin/users/{tokens['user']['id']}"
    answer = await service.send("PATCH", path, admin, {"disabled": True})
    assert answer.json()["disabled_at"] == "2026-11-24T09:00:00Z"
    assert refusal(await service.refresh(tokens)) == (401, "session_revoked", "user_disabled")
    assert refusal(await service.get("/protected", tokens)) == (401, "session_revoked", "user_disabled")
    login = {"username": "ada", "password": PASSWORD}
    assert refusal(await service.client.post("/login", json=login)) == (401, "invalid_credentials", None)
    await service.send("PATCH", path, admin, {"disabled": False})
    assert refusal(await service.refresh(tokens)) == (401, "session_revoked", "user_disabled")
    await service.log_in()


async def test_roles_and_claims_are_in_the_next_access_token(service: Running):
    admin, tokens = await service.administrator(), await service.sign_up()
    body = {"roles": ["editor"], "claims": {"tenant": "acme"}}
    answer = await service.send("PATCH", f"/admin/users/{tokens['user']['id']}", admin, body)
    assert (answer.json()["roles"], answer.json()["claims"]) == (["editor"], {"tenant": "acme"})
    renewed = (await service.refresh(tokens)).json()
    claims = jwt.decode(renewed["access_token"], options={"verify_signature": False})
    assert (claims["roles"], claims["tenant"]) == (["editor"], "acme")


@pytest.mark.parametrize(
    "body", [{"roles": "admin"}, {"roles": ["two words"]}, {"claims": []}, {"disabled": 1}, {"password": "x"}]
)
async def test_a_wrong_change_is_told_and_changes_nothing(service: Running, body):
    admin, tokens = await service.administrator(), await service.sign_up()
    path = f"/admin/users/{tokens['user']['id']}"
    before = (await service.get(path, admin)).json()
    assert refusal(await service.send("PATCH", path, admin, body)) == (422, "validation_failed", None)
    assert (await service.get(path, admin)).json() == before


async def test_an_administrator_sees_and_ends_a_users_sessions(service: Running):
    admin, first, second = await service.administrator(), await service.sign_up(), await service.log_in()
    third = await service.log_in()
    path = f"/admin/users/{first['user']['id']}/sessions"
    page = (await service.get(f"{path}?limit=2", admin)).json()
    assert [item["id"] for item in page["items"]] == [third["session_id"], second["session_id"]]
    assert page["next_cursor"] == second["session_id"]
    assert (await service.send("DELETE", f"{path}/{first['session_id']}", admin)).status_code == 204
    ended = (401, "session_revoked", "revoked_by_admin")
    assert refusal(await service.refresh(first)) == ended
    assert refusal(await service.send("DELETE", f"{path}/{first['session_id']}", admin)) == NOT_FOUND
    assert refusal(await service.send("DELETE", f"{path}/{admin['session_id']}", admin)) == NOT_FOUND
    assert (await service.send("DELETE", path, admin)).json() == {"revoked": 2}
    assert refusal(await service.get("/protected", second)) == ended


async def test_a_deleted_user_is_gone(service: Running):
    admin, tokens = await service.administrator(), await service.sign_up()
    path = f"/admin/users/{tokens['user']['id']}"
    assert (await service.send("DELETE", path, admin)).status_code == 204
    for method, each in routes(tokens["user"]["id"], tokens["session_id"])[1:-1]:
        body = {"disabled": True} if method == "PATCH" else None
        assert refusal(await service.send(method, each, admin, body)) == NOT_FOUND
    unknown = f"/admin/users/{ids.public('user', ids.new_id())}"
    for each in (unknown, "/admin/users/nonsense", f"/admin/users/{tokens['session_id']}"):
        assert refusal(await service.get(each, admin)) == NOT_FOUND


async def test_the_audit_log_has_every_start_and_end_and_no_secret(service: Running):
    admin, tokens = await service.administrator(), await service.sign_up(email="ada@example.com")
    await service.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})
    user = tokens["user"]["id"]
    everything = (await service.get("/admin/events?limit=100", admin)).json()["items"]
    kinds = [event["kind"] for event in everything]
    assert kinds[:3] == ["session.ended", "session.started", "user.created"]
    about = (await service.get(f"/admin/events?user_id={user}&limit=2", admin)).json()
    assert [event["kind"] for event in about["items"]] == ["session.ended", "session.started"]
    assert about["items"][0]["details"] == {"reason": "logout"}
    assert about["items"][0]["session_id"] == tokens["session_id"]
    path = f"/admin/events?user_id={user}&limit=2&cursor={about['next_cursor']}"
    assert [event["kind"] for event in (await service.get(path, admin)).json()["items"]] == ["user.created"]
    for secret in (PASSWORD, "sr_", "argon2", "example.com"):
        assert secret not in str(everything)
