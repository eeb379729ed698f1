"""A user's account: name, preferences, password, reset, deletion."""

import asyncio

import pytest

from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running, running

NEW = "another good password"
WRONG = (401, "invalid_credentials", None)
RECENT = (403, "reauthentication_required", None)


async def test_me_tells_the_account_and_never_the_hash(service: Running):
    tokens = await service.sign_up("Ada", email="ada@example.com")
    answer = await service.get("/me", tokens)
    assert answer.json() == {
        "id": tokens["user"]["id"],
        "username": "Ada",
        "email": "ada@example.com",
        "roles": [],
        "preferences": {},
        "created_at": "2026-11-24T09:00:00Z",
    }


async def test_preferences_are_merged_and_need_no_recent_login(service: Running):
    tokens = await service.sign_up()
    service.clock.move(600)
    tokens = (await service.refresh(tokens)).json()
    body = {"preferences": {"theme": "dark", "mail": {"daily": True}}}
    assert (await service.send("PATCH", "/me", tokens, body)).status_code == 200
    answer = await service.send("PATCH", "/me", tokens, {"preferences": {"theme": None, "lang": "de"}})
    assert answer.json()["preferences"] == {"mail": {"daily": True}, "lang": "de"}
    await asyncio.gather(
        *(service.send("PATCH", "/me", tokens, {"preferences": {f"p{n}": n}}) for n in range(10))
    )
    assert len((await service.get("/me", tokens)).json()["preferences"]) == 12


async def test_a_new_name_or_mail_needs_a_recent_login(service: Running):
    """Fails without the check of a recent login in the route (ASVS 7.5.1)."""
    tokens = await service.sign_up()
    service.clock.move(301)
    tokens = (await service.refresh(tokens)).json()
    for body in ({"username": "lovelace"}, {"email": "new@example.com"}):
        assert refusal(await service.send("PATCH", "/me", tokens, body)) == RECENT
    assert refusal(await service.send("DELETE", "/me", tokens)) == RECENT
    path = "/sessions/current/reauthenticate"
    assert refusal(await service.send("POST", path, tokens, {"password": "wrong horse"})) == WRONG
    answer = await service.send("POST", path, tokens, {"password": PASSWORD})
    assert answer.status_code == 200
    recent = answer.json()
    assert refusal(await service.refresh(tokens)) == (401, "invalid_refresh_token", None)
    assert (await service.refresh(recent)).status_code == 200
    body = {"username": "Lovelace", "email": None}
    changed = await service.send("PATCH", "/me", recent, body)
    assert (changed.json()["username"], changed.json()["email"]) == ("Lovelace", None)
    assert (await service.log_in("lovelace"))["user"]["id"] == tokens["user"]["id"]


async def test_a_name_that_is_taken_or_wrong_changes_nothing(service: Running):
    tokens = await service.sign_up()
    await service.sign_up("bob")
    body = {"username": "BOB", "preferences": {"a": 1}}
    assert refusal(await service.send("PATCH", "/me", tokens, body)) == (409, "username_taken", None)
    body = {"username": "two words", "preferences": {"a": 1}}
    assert refusal(await service.send("PATCH", "/me", tokens, body)) == (422, "validation_failed", None)
    me = (await service.get("/me", tokens)).json()
    assert (me["username"], me["preferences"]) == ("ada", {})
    assert (await service.send("PATCH", "/me", tokens, {"username": "ADA"})).json()["username"] == "ADA"


async def test_a_new_password_ends_the_others_and_gives_this_session_a_new_secret(service: Running):
    """Fails without end_all or renew_secret in Users.change_password (ASVS 6.2.2, 6.2.3, 7.4.3)."""
    tokens, other = await service.sign_up(), await service.log_in()
    body = {"current_password": PASSWORD, "new_password": NEW}
    fresh = (await service.send("POST", "/me/password", tokens, body)).json()
    assert fresh["session_id"] == tokens["session_id"]
    ended = (401, "session_revoked", "password_changed")
    assert refusal(await service.get("/protected", other)) == ended
    assert refusal(await service.refresh(other)) == ended
    assert refusal(await service.refresh(tokens)) == (401, "invalid_refresh_token", None)
    assert (await service.refresh(fresh)).status_code == 200
    answer = await service.client.post("/login", json={"username": "ada", "password": PASSWORD})
    assert refusal(answer) == WRONG
    await service.log_in(password=NEW)
    assert ("user.password_changed",) in service.rows("select kind from events")


async def test_a_password_is_changed_only_with_the_present_one_to_a_good_one(service: Running):
    tokens = await service.sign_up()
    body = {"current_password": "wrong horse", "new_password": NEW}
    assert refusal(await service.send("POST", "/me/password", tokens, body)) == WRONG
    body = {"current_password": PASSWORD, "new_password": "short"}
    answer = await service.send("POST", "/me/password", tokens, body)
    assert refusal(answer) == (422, "weak_password", None)
    assert answer.json()["errors"][0]["field"] == "new_password"
    await service.log_in()


async def test_an_ended_session_can_not_change_the_password_or_confirm_it(make_settings, clock):
    """Fails without the conditions on the row: a process that hasn't synced still takes the token."""
    async with running(make_settings(), clock) as service, running(make_settings(), clock) as other:
        tokens = await service.sign_up()
        await other.client.post("/logout", json={"refresh_token": tokens["refresh_token"]})
        ended = (401, "session_revoked", "logout")
        body = {"current_password": PASSWORD, "new_password": NEW}
        assert refusal(await service.send("POST", "/me/password", tokens, body)) == ended
        path = "/sessions/current/reauthenticate"
        assert refusal(await service.send("POST", path, tokens, {"password": PASSWORD})) == ended
        await service.log_in()


async def reset_token(service: Running) -> str:
    user = await service.container.accounts.find("ada")
    return await service.container.accounts.make_reset_token(user.id)


async def reset(service: Running, token: str, password: str = NEW):
    return await service.client.post("/password-reset", json={"token": token, "new_password": password})


async def test_a_reset_token_sets_a_password_once_and_ends_all_sessions(service: Running):
    """Fails without PasswordResetQueries.use in Accounts.reset_password."""
    tokens = await service.sign_up()
    token = await reset_token(service)
    assert refusal(await reset(service, token, "short")) == (422, "weak_password", None)
    assert (await reset(service, token)).status_code == 204
    assert refusal(await service.refresh(tokens)) == (401, "session_revoked", "password_reset")
    answer = await reset(service, token, "a third good password")
    assert refusal(answer) == (422, "validation_failed", None)
    assert answer.json()["errors"][0]["code"] == "invalid_or_used"
    await service.log_in(password=NEW)


async def test_a_reset_token_dies_after_half_an_hour_and_by_a_newer_one(service: Running):
    await service.sign_up()
    first = await reset_token(service)
    second = await reset_token(service)
    assert (await reset(service, first)).status_code == 422
    service.clock.move(1800)
    assert (await reset(service, second)).status_code == 422
    assert (await reset(service, "pr_nonsense")).status_code == 422
    await service.log_in()


async def test_two_uses_of_a_reset_token_at_once_set_one_password(service: Running):
    await service.sign_up()
    token = await reset_token(service)
    answers = await asyncio.gather(*(reset(service, token, f"{NEW} {number}") for number in range(5)))
    assert sorted(answer.status_code for answer in answers) == [204, 422, 422, 422, 422]


async def test_a_deleted_account_is_emptied_and_its_name_is_free(service: Running):
    tokens, other = await service.sign_up(email="ada@example.com"), await service.log_in()
    token = await reset_token(service)
    assert (await service.send("DELETE", "/me", tokens)).status_code == 204
    deleted = (401, "session_revoked", "user_deleted")
    assert refusal(await service.get("/me", tokens)) == deleted
    assert refusal(await service.refresh(other)) == deleted
    assert (await reset(service, token)).status_code == 422
    answer = await service.client.post("/login", json={"username": "ada", "password": PASSWORD})
    assert refusal(answer) == WRONG
    row = service.rows("select username, email, password_hash, roles, claims, preferences from users")
    assert row == [("", None, None, "[]", "{}", "{}")]
    again = await service.sign_up()
    assert again["user"]["id"] != tokens["user"]["id"]


@pytest.mark.parametrize("body", [{"username": 5}, {"email": "nowhere"}, {"roles": ["admin"]}, {"x": 1}])
async def test_nobody_sets_what_is_not_theirs(service: Running, body):
    tokens = await service.sign_up()
    assert refusal(await service.send("PATCH", "/me", tokens, body)) == (422, "validation_failed", None)
