"""Synchronisation between processes, and the lists that other services fetch."""

import asyncio

import pytest

from sessionapi.errors import Unavailable
from tests.support.api_client import PASSWORD, bearer, refusal
from tests.support.app import Running, running

LOGOUT = (401, "session_revoked", "logout")
INVALID = (401, "invalid_token", None)


async def test_what_one_process_revokes_the_other_refuses_after_its_poll(make_settings, clock):
    """Fails without revoked_since in StateSync._run."""
    async with running(make_settings(), clock) as one, running(make_settings(), clock) as two:
        tokens = await one.sign_up()
        assert (await two.get("/protected", tokens)).status_code == 200
        await one.client.post("/logout", headers=bearer(tokens))
        await two.container.state_sync.sync()
        assert refusal(await two.get("/protected", tokens)) == LOGOUT


async def test_a_process_that_starts_a_moment_later_knows_it_before_its_first_request(make_settings, clock):
    """Fails without the first poll in Container.start."""
    async with running(make_settings(revocation_poll=10), clock) as one:
        tokens = await one.sign_up()
        await one.client.post("/logout", headers=bearer(tokens))
        async with running(make_settings(revocation_poll=10), clock) as two:
            assert refusal(await two.get("/protected", tokens)) == LOGOUT


async def test_no_revoked_token_lives_after_a_restart_with_a_lowered_lifetime(make_settings, clock):
    """Fails if the window of the poll follows ACCESS_TOKEN_TTL. It covers the longest lifetime allowed."""
    async with running(make_settings(access_token_ttl=300), clock) as service:
        tokens = await service.sign_up()
        await service.client.post("/logout", headers=bearer(tokens))
    clock.move(299)
    async with running(make_settings(access_token_ttl=10), clock) as service:
        assert refusal(await service.get("/protected", tokens)) == LOGOUT


async def test_a_revocation_that_commits_late_is_not_missed(make_settings, clock):
    """Fails if a poll requests only the rows that are newer than the last one."""
    async with running(make_settings(), clock) as one, running(make_settings(), clock) as two:
        tokens = await one.sign_up()
        user = await one.container.accounts.find("ada")
        async with one.container.store.begin() as tx:
            ended = await tx.sessions.active_ids(user.id, clock())
            await tx.sessions.revoke(user.id, ended, "logout", clock())
            clock.move(5)
            await two.container.state_sync.sync()
            assert (await two.get("/protected", tokens)).status_code == 200
        await two.container.state_sync.sync()
        assert refusal(await two.get("/protected", tokens)) == LOGOUT


async def test_a_deleted_users_tokens_die_everywhere(make_settings, clock):
    async with running(make_settings(), clock) as one, running(make_settings(), clock) as two:
        tokens = await one.sign_up()
        await one.send("DELETE", "/me", tokens)
        await two.container.state_sync.sync()
        assert refusal(await two.get("/protected", tokens)) == (401, "session_revoked", "user_deleted")


async def test_an_ended_session_is_forgotten_when_none_of_its_tokens_can_live(service: Running):
    tokens = await service.sign_up()
    await service.client.post("/logout", headers=bearer(tokens))
    service.clock.move(315)
    await service.container.state_sync.sync()
    assert list(service.container.revocations.all()) == [tokens["session_id"]]
    service.clock.move(1)
    await service.container.state_sync.sync()
    assert not service.container.revocations.all()


async def test_many_who_wait_share_one_poll(service: Running):
    before = service.container.state_sync._succeeded
    await asyncio.gather(*(service.container.state_sync.fresher_than(before + 1e-9) for _ in range(100)))
    assert service.container.state_sync._succeeded > before


async def test_a_process_that_has_not_polled_for_long_is_not_ready(service: Running):
    service.container.state_sync._succeeded -= 3600
    with pytest.raises(Unavailable, match="not been able to read recent revocations"):
        service.container.state_sync.check()


async def service_token(service: Running) -> dict[str, str]:
    return bearer(await service.container.service_tokens.add("shop"))


async def test_the_list_of_revocations_is_whole_and_tells_when_it_has_not_changed(service: Running):
    headers = await service_token(service)
    tokens = await service.sign_up()
    await service.client.post("/logout", headers=bearer(tokens))
    answer = await service.client.get("/revocations", headers=headers)
    assert answer.json() == {
        "revoked": [{"session_id": tokens["session_id"], "reason": "logout"}],
        "keys": service.container.ring.version,
        "window": 315,
    }
    again = {**headers, "If-None-Match": answer.headers["etag"]}
    unchanged = await service.client.get("/revocations", headers=again)
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    await service.container.keys.rotate_now()
    await service.container.state_sync.sync()
    assert (await service.client.get("/revocations", headers=again)).status_code == 200


@pytest.mark.parametrize(("method", "path"), [("GET", "/revocations"), ("POST", "/introspect")])
async def test_a_wrong_revoked_or_missing_service_token_is_refused(service: Running, method, path):
    """Fails without the service-token dependency of the route, or without its revoked_at."""
    headers = await service_token(service)
    tokens = await service.sign_up()
    assert refusal(await service.client.request(method, path)) == (401, "missing_token", None)
    for each in ("st_" + "0" * 64, tokens["access_token"], tokens["refresh_token"]):
        assert refusal(await service.client.request(method, path, headers=bearer(each))) == INVALID
    await service.container.service_tokens.revoke("shop")
    assert refusal(await service.client.request(method, path, headers=headers)) == INVALID
    assert [each.name for each in await service.container.service_tokens.all()] == ["shop"]
    assert "st_" not in str(service.rows("select * from service_tokens"))


async def introspect(service: Running, headers: dict, token: str) -> dict:
    answer = await service.client.post("/introspect", headers=headers, data={"token": token})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    as_json = await service.client.post("/introspect", headers=headers, json={"token": token})
    assert as_json.json() == answer.json()
    return answer.json()


async def test_introspection_tells_of_a_good_token_from_the_live_rows(service: Running):
    headers = await service_token(service)
    tokens = await service.sign_up()
    said = await introspect(service, headers, tokens["access_token"])
    assert said["active"] is True
    assert (said["sub"], said["sid"]) == (tokens["user"]["id"], tokens["session_id"])
    assert (said["username"], said["roles"], said["exp"] - said["iat"]) == ("ada", [], 60)


async def test_introspection_says_nothing_of_what_is_no_good_access_token(make_settings, clock):
    """Even when the session has just ended in another process. Fails without the read of the row."""
    slow = make_settings(revocation_poll=10)
    async with running(slow, clock) as service, running(slow, clock) as other:
        headers = await service_token(service)
        tokens, dead = await service.sign_up(), await service.log_in()
        await other.client.post("/logout", headers=bearer(dead))
        for text in ("garbage", tokens["refresh_token"], dead["access_token"], ""):
            assert await introspect(service, headers, text) == {"active": False}
        clock.move(60)
        assert await introspect(service, headers, tokens["access_token"]) == {"active": False}


async def test_a_wrong_introspection_is_told(service: Running):
    headers = await service_token(service)
    answer = await service.client.post("/introspect", headers=headers, json={})
    assert refusal(answer) == (422, "validation_failed", None)
    text = {**headers, "Content-Type": "text/plain"}
    answer = await service.client.post("/introspect", headers=text, content="token=x")
    assert refusal(answer) == (415, "unsupported_media_type", None)
    answer = await service.client.post("/introspect", headers=headers, data={"token": "x" * 70_000})
    assert refusal(answer) == (413, "payload_too_large", None)


async def test_generic_libraries_find_the_keys(service: Running):
    found = (await service.client.get("/.well-known/oauth-authorization-server")).json()
    assert found["issuer"] == "http://localhost:8000"
    assert found["jwks_uri"] == "http://localhost:8000/.well-known/jwks.json"


async def test_two_living_service_tokens_have_two_names(service: Running):
    await service.container.service_tokens.add("shop")
    with pytest.raises(Exception, match="Revoke it first"):
        await service.container.service_tokens.add("shop")
    with pytest.raises(Exception, match="no active service token"):
        await service.container.service_tokens.revoke("nobody")
    assert PASSWORD not in str(service.rows("select * from events"))
