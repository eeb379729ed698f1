"""A stolen database alone, or a stolen server secret with known ids alone, opens nothing and ends nothing."""

from dataclasses import replace

import pytest

from sessionapi import ids
from sessionapi.keys import keyring
from sessionapi.keys.keyring import DecryptionFailed
from sessionapi.keys.server_secret import ServerSecret
from sessionapi.tokens import refresh_token
from sessionapi.tokens.refresh_token import RefreshToken
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running
from tests.support.settings import SERVER_SECRET

INVALID = (401, "invalid_refresh_token", None)
THIEFS = "a secret of the thief, also of more than 32 bytes"


async def alive(service: Running, tokens: dict) -> None:
    assert (await service.refresh(tokens)).json()["session_id"] == tokens["session_id"]
    assert service.rows("select revoke_reason from sessions where revoked_at is not null") == []


async def tried_everywhere(service: Running, forged: list[str]) -> None:
    """Send each forged token to all routes that take refresh tokens."""
    await service.sign_up("thief")
    body = {"username": "thief", "password": PASSWORD, "transport": "cookie"}
    for text in forged:
        assert refusal(await service.refresh(text)) == INVALID
        assert refusal(await service.refresh(text, "a-key")) == INVALID
        cookie = {"Cookie": f"__Host-session={text}"}
        assert refusal(await service.client.post("/refresh", headers=cookie)) == INVALID
        await service.client.post("/logout", json={"refresh_token": text})
        await service.client.post("/logout", headers=cookie)
        await service.client.post("/login", json=body, headers=cookie)
        service.client.cookies.clear()


def minted(server_secret: str, tokens: dict, secrets: list[bytes]) -> list[str]:
    """Return tokens of a known session, of several generations, under a server secret."""
    key = ServerSecret(server_secret.encode()).derive("refresh token")[0]
    user, session = ids.parse("user", tokens["user"]["id"]), ids.parse("sess", tokens["session_id"])
    assert user
    assert session
    return [
        refresh_token.mint(RefreshToken(user, session, generation, secret), key)
        for secret in secrets
        for generation in (0, 1, 2, 7)
    ]


@pytest.mark.parametrize("transport", ["body", "cookie"])
async def test_a_stolen_server_secret_with_known_ids_alone_does_nothing(service: Running, transport):
    """Fails without secret_digest in refresh._verify, or secret_matches in Sessions._has_secret."""
    tokens = await service.sign_up()
    in_cookie = await service.client.post(
        "/login", json={"username": "ada", "password": PASSWORD, "transport": "cookie"}
    )
    service.client.cookies.clear()
    target = tokens if transport == "body" else in_cookie.json()
    guesses = [bytes(16), b"\xff" * 16, ids.new_secret()]
    await tried_everywhere(service, minted(SERVER_SECRET, target, guesses))
    await alive(service, tokens)


async def test_a_stolen_database_alone_does_nothing(service: Running):
    """Fails without the HMAC in refresh_token.match, or without the encryption in keyring.seal."""
    tokens = await service.sign_up()
    digest = service.rows("select secret_digest from sessions")[0][0]
    await tried_everywhere(service, minted(THIEFS, tokens, [digest[:16], digest[16:]]))
    key = ServerSecret(SERVER_SECRET.encode()).derive("refresh token")[0]
    known = refresh_token.match(tokens["refresh_token"], [key])
    assert known
    await tried_everywhere_again(service, minted(THIEFS, tokens, [known.secret]))
    for stored in await service.container.keys.all():
        with pytest.raises(DecryptionFailed):
            keyring.unseal(ServerSecret(THIEFS.encode()).derive("key ring"), stored)
    await alive(service, tokens)


async def tried_everywhere_again(service: Running, forged: list[str]) -> None:
    for text in forged:
        assert refusal(await service.refresh(text)) == INVALID
        await service.client.post("/logout", json={"refresh_token": text})


async def test_rows_of_two_sealed_keys_can_not_be_exchanged(service: Running):
    """Fails without the `kid` as associated data in keyring.seal."""
    made = await service.container.keys.publish()
    first, second = await service.container.keys.all()
    keys = ServerSecret(SERVER_SECRET.encode()).derive("key ring")
    assert keyring.unseal(keys, second).id == made.id
    with pytest.raises(DecryptionFailed):
        keyring.unseal(keys, replace(second, private_key=first.private_key))
