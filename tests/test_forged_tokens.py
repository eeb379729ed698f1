"""ASVS 9.1.1-.3, 9.2.1-.4, RFC 8725, RFC 9068: only our access tokens open anything."""

import os
import random
from collections import Counter

import pytest

from sessionapi.errors import AuthenticationError
from sessionapi.verifier import Verifier
from tests.support import forge
from tests.support.api_client import refusal
from tests.support.app import Running
from tests.support.forge import Forger

MUTATIONS = 100_000 if "SESSIONAPI_PROVE" in os.environ else 2_000
ENTRIES = forge.entries()
pytestmark = [
    pytest.mark.timeout(1_800),
    pytest.mark.engines("sqlite"),
]  # nothing here depends on the database


def forger(service: Running, tokens: dict, another: dict) -> Forger:
    key = service.container.ring.active.private_key
    now = int(service.clock().timestamp())
    return Forger(tokens["access_token"], another["access_token"], tokens["refresh_token"], now, key)


async def open_with(service: Running, token: str) -> tuple[int, str]:
    answer = await service.client.get("/protected", headers=[(b"Authorization", b"Bearer " + token.encode())])
    if answer.status_code == 200:
        return 200, ""
    assert answer.headers["www-authenticate"].startswith("Bearer")
    return refusal(answer)[:2]


def test_the_corpus_has_two_hundred_tokens_and_more():
    assert len(ENTRIES) >= 200


@pytest.mark.requirement("ASVS 9.1.1-.3, RFC 8725")
async def test_forged_tokens_are_refused(service: Running, clock):
    """Fails, for one entry or another, without any single check of access_token.verify."""
    tokens = await service.sign_up()
    forging = forger(service, tokens, (await service.refresh(tokens)).json())
    elsewhere = Verifier("http://localhost:8000", jwks=service.container.ring.jwks(), leeway=0, clock=clock)
    assert (await open_with(service, forging.good))[0] == 200
    assert (await open_with(service, forging.forge({})))[0] == 200, "an entry that changes nothing is good"
    wrong = []
    for name, entry in ENTRIES.items():
        token = forging.forge(entry)
        status, code = await open_with(service, token)
        if status != 401 or code not in ("invalid_token", "expired_token", "malformed_authorization"):
            wrong.append(f"{name}: {status} {code}")
        try:
            elsewhere.verify(token)
            wrong.append(f"{name}: the verifier takes it")
        except AuthenticationError:
            pass
    assert wrong == []


def mutated(dice: random.Random, text: str, other: str, alphabet: str) -> str:
    """Return a different text: replaced characters, truncations, exchanged parts, another spelling."""
    way = dice.randrange(8)
    at = dice.randrange(len(text))
    if way == 0:
        return text[:at] + dice.choice(alphabet) + text[at + 1 :]
    if way == 1:
        return text[:at] + text[at + 1 :]
    if way == 2:
        return text[:at] + dice.choice(alphabet) + text[at:]
    if way == 3:
        return text[:at]
    if way == 4:
        return text[:at] + other[at:]
    if way == 5:
        return text[:at] + text[at:].swapcase()
    if way == 6:
        letter = (
            alphabet[alphabet.index(text[at]) ^ 1 << dice.randrange(6)] if text[at] in alphabet[:64] else "="
        )
        return text[:at] + letter + text[at + 1 :]
    return text + dice.choice(["=", "==", ".", "A", "AA", text])


BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" + ".=+/~!é"


@pytest.mark.prove
@pytest.mark.requirement("ASVS 9.1.1-.3, RFC 8725")
async def test_no_mutation_of_an_access_token_is_taken(service: Running):
    """Fails without the check of the signature, or if access_token.key_id accepts base64 padding."""
    tokens = await service.sign_up()
    good, other = tokens["access_token"], (await service.refresh(tokens)).json()["access_token"]
    dice, seen = random.Random(9), Counter()
    for _ in range(MUTATIONS // 2):
        text = mutated(dice, good, other, BASE64URL)
        seen[(await open_with(service, text)) if text not in (good, other) else "the very same"] += 1
    print(f"access tokens: {dict(seen)}")  # noqa: T201
    assert {status for status, _ in (key for key in seen if isinstance(key, tuple))} == {401}


@pytest.mark.prove
@pytest.mark.requirement("ASVS 7.2.3")
async def test_no_mutation_of_a_refresh_token_is_taken(service: Running):
    """Fails without the HMAC in TokenFormat.read, or without its refusal of a second spelling."""
    good, other = (await service.sign_up())["refresh_token"], (await service.log_in())["refresh_token"]
    dice, seen = random.Random(7), Counter()
    for _ in range(MUTATIONS // 2):
        text = mutated(dice, good, other, BASE64URL)
        if text in (good, other):
            seen["the very same"] += 1
            continue
        seen[refusal(await service.refresh(text))[:2]] += 1
    print(f"refresh tokens: {dict(seen)}")  # noqa: T201
    assert {key for key in seen if isinstance(key, tuple)} <= {
        (401, "invalid_refresh_token"),
        (422, "validation_failed"),
    }
    assert service.rows("select count(*) from sessions where revoked_at is not null") == [(0,)]


@pytest.mark.requirement("ASVS 9.2.1-.4, RFC 9068")
async def test_a_token_dies_at_exp_and_is_of_one_kind(service: Running):
    """Fails without the checks of exp, iat, typ, aud or iss in access_token.verify. exp has no leeway."""
    tokens = await service.sign_up()
    forging = forger(service, tokens, (await service.refresh(tokens)).json())
    wrong = [{"iat": forging.now + 6}, {"aud": "another"}, {"iss": "https://evil.example"}]
    for claims in wrong:
        assert (await open_with(service, forging.forge({"claims": claims, "key": "ours"}))) == (
            401,
            "invalid_token",
        )
    assert (await open_with(service, forging.forge({"header": {"typ": "JWT"}, "key": "ours"}))) == (
        401,
        "invalid_token",
    )
    assert (await open_with(service, tokens["refresh_token"])) == (401, "invalid_token")
    assert refusal(await service.refresh(tokens["access_token"]))[1] == "invalid_refresh_token"
    service.clock.move(59)
    assert (await open_with(service, tokens["access_token"]))[0] == 200
    service.clock.move(1)
    assert (await open_with(service, tokens["access_token"])) == (401, "expired_token")


@pytest.mark.requirement("RFC 6750")
async def test_the_challenge_says_what_was_wrong_and_only_the_header_is_read(service: Running):
    """Fails without bearer.challenge, or with a token taken from the query or a form."""
    tokens = await service.sign_up()
    token = tokens["access_token"]
    bare = await service.client.get("/protected", params={"access_token": token})
    assert bare.headers["www-authenticate"] == "Bearer"
    assert refusal(bare)[:2] == (401, "missing_token")
    form = await service.client.request("GET", "/protected", data={"access_token": token})
    assert refusal(form)[:2] == (401, "missing_token")
    for sent, error in (
        ("Bearer", "invalid_request"),
        ("Bearer x y", "invalid_request"),
        ("Bearer x", "invalid_token"),
    ):
        answer = await service.client.get("/protected", headers={"Authorization": sent})
        assert answer.status_code == 401
        assert f'error="{error}"' in answer.headers["www-authenticate"]
        assert "error_description=" in answer.headers["www-authenticate"]
