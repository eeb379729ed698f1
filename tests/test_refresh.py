"""Refreshing over HTTP: renewal, rotation, repeat, reuse, and the rows after each of them (design 4.3)."""

import asyncio
import shutil

import pytest
import sqlalchemy as sa

from sessionapi.keys.server_secret import ServerSecret
from sessionapi.models import Client
from sessionapi.sessions.actors import OPERATOR
from sessionapi.sessions.refresh import RefreshRequest
from sessionapi.storage.session_batches import Rotation
from sessionapi.storage.tables import sessions
from sessionapi.tokens import refresh_token
from sessionapi.tokens.refresh_token import RefreshToken
from tests.support.api_client import refusal
from tests.support.app import Running, running
from tests.support.settings import SERVER_SECRET

DUE = 600
REUSED = (401, "refresh_token_reused", None)
INVALID = (401, "invalid_refresh_token", None)


def generations(service: Running) -> list[tuple]:
    return service.rows("select generation, revoke_reason from sessions order by id")


def content(service: Running) -> list[str]:
    """Return everything that the database contains, as text."""
    tables = ("users", "sessions", "session_data", "events", "signing_keys", "password_resets")
    return [str(service.rows(f"select * from {table}")) for table in tables]


async def rotated(service: Running, tokens: dict, key: str | None = None) -> dict:
    service.clock.move(DUE)
    answer = await service.refresh(tokens, key)
    assert answer.status_code == 200, answer.text
    assert answer.json()["generation"] == tokens["generation"] + 1
    return answer.json()


async def test_a_renewal_answers_the_same_refresh_token_and_writes_nothing(service: Running):
    tokens = await service.sign_up()
    service.clock.move(DUE - 1)
    before = content(service)
    renewed = (await service.refresh(tokens, "a-key")).json()
    assert renewed["refresh_token"] == tokens["refresh_token"]
    assert renewed["access_token"] != tokens["access_token"]
    assert (renewed["generation"], renewed["expires_in"]) == (0, 60)
    assert content(service) == before
    assert (await service.get("/protected", renewed)).status_code == 200


async def test_an_hour_of_refreshes_every_fifty_seconds_rotates_six_times(service: Running):
    tokens = await service.sign_up()
    for _ in range(72):
        service.clock.move(50)
        tokens = (await service.refresh(tokens)).json()
    assert tokens["generation"] == 6
    assert generations(service) == [(6, None)]


async def test_a_rotation_answers_the_next_refresh_token(service: Running):
    tokens = await service.sign_up()
    following = await rotated(service, tokens)
    assert following["refresh_token"] != tokens["refresh_token"]
    assert following["session_id"] == tokens["session_id"]
    again = (await service.refresh(following)).json()
    assert again["refresh_token"] == following["refresh_token"]


async def test_the_same_old_token_gets_the_same_successor_within_the_grace(service: Running):
    tokens = await service.sign_up()
    following = await rotated(service, tokens)
    service.clock.move(10)
    assert (await service.refresh(tokens)).json()["refresh_token"] == following["refresh_token"]
    assert generations(service) == [(1, None)]


async def test_a_late_repeat_with_the_key_of_the_rotation_gets_the_same_successor(service: Running):
    tokens = await service.sign_up()
    following = await rotated(service, tokens, "key-1")
    service.clock.move(3600)
    assert (await service.refresh(tokens, "key-1")).json()["refresh_token"] == following["refresh_token"]


async def test_a_repeat_adds_its_own_key_up_to_four(service: Running):
    tokens = await service.sign_up()
    await rotated(service, tokens, "key-1")
    for name in ("key-2", "key-3", "key-4", "key-5", "key-2"):
        assert (await service.refresh(tokens, name)).status_code == 200
    assert service.rows("select length(retry_digests) from sessions") == [(4 * 32,)]
    service.clock.move(60)
    for name in ("key-1", "key-2", "key-3", "key-4"):
        assert (await service.refresh(tokens, name)).status_code == 200
    assert refusal(await service.refresh(tokens, "key-5")) == REUSED


async def test_after_a_late_repeat_the_next_rotation_waits_three_graces(service: Running):
    tokens = await service.sign_up()
    following = await rotated(service, tokens, "key-1")
    service.clock.move(DUE)
    assert (await service.refresh(tokens, "key-1")).json()["generation"] == 1
    service.clock.move(29)
    assert (await service.refresh(following)).json()["generation"] == 1
    service.clock.move(1)
    assert (await service.refresh(following)).json()["generation"] == 2


@pytest.mark.requirement("RFC 9700")
async def test_a_replayed_old_token_ends_the_session_for_both(service: Running):
    """Fails without `return Decision("reuse", stored)` or without ending the session for it."""
    victim = thief = await service.sign_up()
    victim = await rotated(service, victim)
    assert victim["refresh_token"] != thief["refresh_token"]
    service.clock.move(11)
    assert refusal(await service.refresh(thief)) == REUSED
    ended = (401, "session_revoked", "refresh_reuse")
    assert refusal(await service.refresh(victim)) == ended
    assert refusal(await service.refresh(thief)) == ended
    assert refusal(await service.get("/protected", victim)) == ended
    assert ("session.ended", '{"reason": "refresh_reuse"}') in service.rows(
        "select kind, details from events"
    )


async def test_a_token_two_generations_old_is_reuse_even_in_the_grace_and_with_its_key(service: Running):
    tokens = await service.sign_up()
    following = await rotated(service, tokens, "key-1")
    await rotated(service, following, "key-2")
    assert refusal(await service.refresh(tokens, "key-1")) == REUSED


async def test_a_repeat_from_another_address_is_in_the_audit_log(make_settings, clock):
    async with running(make_settings(), clock) as service:
        tokens = await service.sign_up()
        await rotated(service, tokens)
        service.client._transport.client = ("203.0.113.9", 4711)
        assert (await service.refresh(tokens)).status_code == 200
        assert ("session.repeated_elsewhere", "203.0.113.9") in service.rows("select kind, ip from events")


@pytest.mark.parametrize("text", ["", "sr_", "sr_" + "A" * 116, "x" * 512, "sr_" + "é" * 116, "sr_\x00"])
async def test_what_is_no_token_of_ours_is_refused_without_a_query(service: Running, text):
    """Fails (by a query) without the HMAC in refresh_token.match."""
    asked: list[str] = []

    def note(connection, cursor, statement, *rest):
        asked.append(statement)

    sa.event.listen(service.container.store._reader.sync_engine, "before_cursor_execute", note)
    assert refusal(await service.refresh(text)) in (INVALID, (422, "validation_failed", None))
    assert not [statement for statement in asked if "JOIN users" in statement]
    await service.refresh(await service.sign_up())
    assert [statement for statement in asked if "JOIN users" in statement]


def forged(tokens: dict, server_secret: str = SERVER_SECRET, **changes) -> str:
    """Return a token with other contents, under the key of a server secret."""
    key = ServerSecret(SERVER_SECRET.encode()).derive("refresh token")[0]
    token = refresh_token.match(tokens["refresh_token"], [key])
    assert token
    fields = {name: getattr(token, name) for name in ("user_id", "session_id", "generation", "secret")}
    other = ServerSecret(server_secret.encode()).derive("refresh token")[0]
    return refresh_token.mint(RefreshToken(**{**fields, **changes}), other)


async def test_a_token_with_another_secret_or_of_another_session_is_refused(service: Running):
    """Fails without the comparison of secret_digest in refresh._verify."""
    tokens, other = await service.sign_up(), await service.sign_up("bob")
    known = refresh_token.match(
        other["refresh_token"], [ServerSecret(SERVER_SECRET.encode()).derive("refresh token")[0]]
    )
    for text in (
        forged(tokens, "another server secret of more than 32 bytes"),
        forged(tokens, secret=b"\x00" * 16),
        forged(tokens, session_id=known.session_id),
        forged(tokens, user_id=known.user_id, session_id=known.session_id),
    ):
        assert refusal(await service.refresh(text)) == INVALID
    assert generations(service) == [(0, None), (0, None)]


async def test_a_token_of_one_transport_is_not_taken_by_the_other(service: Running):
    """Fails without the comparison of transport in refresh._verify."""
    tokens = await service.sign_up()
    answer = await service.client.post(
        "/refresh", headers={"Cookie": f"__Host-session={tokens['refresh_token']}"}
    )
    assert refusal(answer) == INVALID


async def test_a_refresh_with_nothing_sent_says_what_to_send(service: Running):
    assert refusal(await service.client.post("/refresh")) == INVALID
    assert refusal(await service.client.post("/refresh", json={})) == INVALID


async def test_a_token_in_the_body_and_a_cookie_at_once_are_refused(service: Running):
    tokens = await service.sign_up()
    headers = {"Cookie": f"__Host-session={tokens['refresh_token']}"}
    answer = await service.client.post(
        "/refresh", json={"refresh_token": tokens["refresh_token"]}, headers=headers
    )
    assert refusal(answer) == (422, "validation_failed", None)


@pytest.mark.parametrize("key", ["", " ", "two words", "x" * 256])
async def test_an_idempotency_key_is_visible_ascii_of_bounded_length(service: Running, key):
    tokens = await service.sign_up()
    answer = await service.client.post(
        "/refresh", json={"refresh_token": tokens["refresh_token"]}, headers={"Idempotency-Key": key}
    )
    assert refusal(answer) == (422, "validation_failed", None)


async def test_a_refresh_of_a_disabled_or_deleted_users_session_is_refused(service: Running):
    tokens, other = await service.sign_up(), await service.sign_up("bob")
    for name, end in (
        ("ada", service.container.accounts.disable),
        ("bob", service.container.accounts.delete),
    ):
        await end((await service.container.accounts.find(name)).id, OPERATOR)
    assert refusal(await service.refresh(tokens)) == (401, "session_revoked", "user_disabled")
    assert refusal(await service.refresh(other)) == (401, "session_revoked", "user_deleted")


async def test_a_change_of_the_server_secret_logs_nobody_out(make_settings, clock):
    """Fails without trying the accepted keys in refresh_token.match, and if its text stays under them."""
    new = "a new server secret, also of more than 32 bytes"
    async with running(make_settings(), clock) as service:
        tokens = await service.sign_up()
    async with running(make_settings(secret=new, secret_accepted=(SERVER_SECRET,)), clock) as service:
        renewed = (await service.refresh(tokens)).json()
        assert renewed["generation"] == tokens["generation"]
        tokens = await rotated(service, tokens)
        await service.container.keys.reencrypt()
    async with running(make_settings(secret=new), clock) as service:
        assert (await service.refresh(renewed)).status_code == 200
    async with running(make_settings(secret=new), clock) as service:
        assert (await service.refresh(tokens)).status_code == 200


@pytest.mark.engines("sqlite")
async def test_a_database_that_was_rolled_back_keeps_its_users_logged_in(make_settings, clock):
    """p > g: the database lost a rotation. Sessions that were revoked before the copy stay revoked."""
    data = make_settings().data_dir
    async with running(make_settings(), clock) as service:
        tokens, gone = await service.sign_up(), await service.sign_up("bob")
        await service.client.post("/logout", json={"refresh_token": gone["refresh_token"]})
    shutil.copytree(data, data.with_name("copy"))
    async with running(make_settings(), clock) as service:
        for _ in range(3):
            tokens = await rotated(service, tokens)
    shutil.rmtree(data)
    data.with_name("copy").rename(data)
    async with running(make_settings(), clock) as service:
        answer = await service.refresh(tokens)
        assert (answer.status_code, answer.json()["generation"]) == (200, 4)
        assert refusal(await service.refresh(gone)) == (401, "session_revoked", "logout")
        assert generations(service) == [(4, None), (0, "logout")]
        assert ("session.generation_ahead",) in service.rows("select kind from events")


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("key", [None, "key-1"])
async def test_a_rotation_knows_what_its_row_has_become(service: Running, active: bool, key: str | None):
    """The statement returns only the rotated sessions, so `policy.rotated` must predict the row."""
    tokens = await service.sign_up()
    service.clock.move(DUE)
    presented = RefreshRequest(tokens["refresh_token"], "body", Client("192.0.2.7", "any"), key, active)
    session = (await service.container.refreshes.refresh(presented)).session
    assert session.generation == 1
    async with service.container.store.read() as tx:
        assert await tx.sessions.get(session.user_id, session.id) == session


async def test_a_rotation_returns_the_auth_time_that_its_row_has(service: Running):
    """Fails unless the statement returns `auth_time`: the read before it had the older one."""
    tokens = await service.sign_up()
    shown = service.container.refreshes.issuer.read(tokens["refresh_token"])
    service.clock.move(DUE)
    now = service.clock()
    rotation = Rotation((shown.user_id, shown.session_id), 0, shown.secret_digest, now, now, True, None, None)
    async with service.container.store.begin() as tx:
        await tx.connection.execute(sa.update(sessions).values(auth_time=now))
        assert await tx.session_batches.rotate([rotation]) == {rotation.key: now}


async def test_two_refreshes_at_once_get_the_same_successor(service: Running):
    tokens = await service.sign_up()
    service.clock.move(DUE)
    answers = await asyncio.gather(*(service.refresh(tokens) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1
    assert generations(service) == [(1, None)]


async def test_outcomes_are_counted(service: Running):
    tokens = await service.sign_up()
    await service.refresh(tokens)
    await rotated(service, tokens)
    await service.refresh(tokens)
    service.clock.move(11)
    await service.refresh(tokens)
    counted = {
        outcome: service.container.metrics.refreshes.labels(outcome)._value.get()
        for outcome in ("renewal", "rotation", "repeat", "reuse")
    }
    assert counted == {"renewal": 1, "rotation": 1, "repeat": 1, "reuse": 1}
