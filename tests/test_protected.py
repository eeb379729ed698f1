"""`/protected`, and with it every Bearer route: the tokens that it accepts, and the error for any other."""

import json
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import jwt
import pytest
import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sessionapi.storage.tables import users
from tests.support.api_client import bearer
from tests.support.app import Running, running

pytestmark = pytest.mark.engines("sqlite")  # nothing here depends on the database


@pytest.fixture
async def tokens(service: Running) -> dict[str, Any]:
    return await service.sign_up()


async def refused(service: Running, headers: Any, code: str) -> str:
    """Assert that the headers are refused with this code, and return the challenge."""
    answer = await service.client.get("/protected", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    return answer.headers["www-authenticate"]


def encode(value: object) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def craft(service: Running, header: Mapping[str, Any], claims: Mapping[str, Any]) -> str:
    """Return a token with a valid signature of our key over exactly this header and these claims."""
    parts = f"{encode(header)}.{encode(claims)}"
    signature = jwt.get_algorithm_by_name("ES256").sign(
        parts.encode(), service.container.ring.active.private_key
    )
    return f"{parts}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def forged(
    service: Running, tokens: Mapping[str, Any], *, header: Mapping[str, Any] | None = None, **claims: Any
) -> str:
    """Return the given token with some claims or header parameters changed, or left out if None."""
    own = {"alg": "ES256", "kid": service.container.ring.active.kid, "typ": "at+jwt"}
    payload = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    without_none = [
        {name: value for name, value in {**old, **new}.items() if value is not None}
        for old, new in ((own, header or {}), (payload, claims))
    ]
    return craft(service, *without_none)


async def test_a_token_opens_it(service: Running, tokens):
    answer = await service.get("/protected", tokens)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json() == {
        "data": "Protected data",
        "user_id": tokens["user"]["id"],
        "session_id": tokens["session_id"],
    }


async def test_the_token_says_what_the_design_says(service: Running, tokens):
    token = tokens["access_token"]
    assert jwt.get_unverified_header(token) == {
        "alg": "ES256",
        "typ": "at+jwt",
        "kid": service.container.ring.active.kid,
    }
    claims = jwt.decode(token, options={"verify_signature": False})
    now = int(service.clock().timestamp())
    assert set(claims) == {"iss", "aud", "sub", "sid", "iat", "exp", "jti", "auth_time", "amr", "roles"}
    assert (claims["iss"], claims["aud"]) == ("http://localhost:8000", "sessionapi")
    assert (claims["sub"], claims["sid"]) == (tokens["user"]["id"], tokens["session_id"])
    assert (claims["iat"], claims["exp"], claims["auth_time"]) == (now, now + 60, now)
    assert (claims["amr"], claims["roles"]) == (["pwd"], [])
    assert tokens["expires_in"] == 60
    assert tokens["session_expires_in"] == 7 * 86_400


async def test_pyjwt_verifies_the_token_from_the_jwks_alone(service: Running, tokens):
    answer = await service.client.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    keys = jwt.PyJWKSet.from_dict(answer.json())
    key = keys[jwt.get_unverified_header(tokens["access_token"])["kid"]]
    claims = jwt.decode(
        tokens["access_token"],
        key,
        algorithms=["ES256"],
        audience="sessionapi",
        options={"verify_exp": False, "verify_iat": False},  # the fake clock is not the system's
    )
    assert claims["sid"] == tokens["session_id"]
    assert not any("d" in key for key in answer.json()["keys"])


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "missing_token"),
        ([("Authorization", "Basic YTpi")], "missing_token"),
        ([("Authorization", "")], "missing_token"),
        ([("Authorization", "Bearer")], "malformed_authorization"),
        ([("Authorization", "Bearer ")], "malformed_authorization"),
        ([("Authorization", "Bearer a.b.c d.e.f")], "malformed_authorization"),
        ([("Authorization", "Bearer a.b.c"), ("Authorization", "Bearer a.b.c")], "malformed_authorization"),
        ([("Authorization", b"Bearer \xc3\xa9.b.c")], "malformed_authorization"),
        ([("Authorization", "Bearer " + "a" * 10_240)], "malformed_authorization"),
        ([("Authorization", "Bearer garbage")], "invalid_token"),
        ([("Authorization", "Bearer a.b.c")], "invalid_token"),
        ([("Authorization", "Bearer ..")], "invalid_token"),
    ],
)
async def test_a_header_that_is_not_one_bearer_token_is_told_so(service: Running, headers, code):
    challenge = await refused(service, headers, code)
    expected = {
        "missing_token": "",
        "malformed_authorization": "invalid_request",
        "invalid_token": "invalid_token",
    }
    name = expected[code]
    assert challenge.startswith(f'Bearer error="{name}", error_description="' if name else "Bearer")
    assert name or challenge == "Bearer"


@pytest.mark.parametrize("scheme", ["bearer", "BEARER"])
async def test_the_scheme_is_of_any_case(service: Running, tokens, scheme):
    headers = {"Authorization": f"{scheme} {tokens['access_token']}"}
    assert (await service.client.get("/protected", headers=headers)).status_code == 200


async def test_a_token_in_the_query_or_the_body_is_not_taken(service: Running, tokens):
    answer = await service.client.get("/protected", params={"access_token": tokens["access_token"]})
    assert answer.json()["code"] == "missing_token"


async def test_a_tampered_signature_is_refused(service: Running, tokens):
    """Fails without `jwt.InvalidSignatureError` in access_token._decode, or with `verify_signature` off."""
    head, payload, signature = tokens["access_token"].split(".")
    flipped = ("A" if signature[10] != "A" else "B").join([signature[:10], signature[11:]])
    await refused(service, bearer(f"{head}.{payload}.{flipped}"), "invalid_token")


async def test_alg_none_and_hmac_with_the_public_key_are_refused(service: Running, tokens):
    """Fails without `algorithms=[key.algorithm]` in access_token._decode."""
    key = service.container.ring.active
    payload = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    header = {"alg": "none", "kid": key.kid, "typ": "at+jwt"}
    for signature in ("", "AAAA"):
        await refused(service, bearer(f"{encode(header)}.{encode(payload)}.{signature}"), "invalid_token")
    pem = key.public.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    point = key.public.public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    for secret in (pem, point, b"x" * 32):
        parts = f"{encode({**header, 'alg': 'HS256'})}.{encode(payload)}"
        mac = jwt.get_algorithm_by_name("HS256").sign(parts.encode(), secret)
        token = f"{parts}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"
        await refused(service, bearer(token), "invalid_token")


async def test_another_key_under_our_kid_is_refused(service: Running, tokens):
    payload = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    headers = {"kid": service.container.ring.active.kid, "typ": "at+jwt"}
    token = jwt.encode(payload, ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers=headers)
    await refused(service, bearer(token), "invalid_token")


@pytest.mark.parametrize(
    "header",
    [
        {"kid": "key_01m85vvvs3ezwbcdbgcxadweye"},
        {"kid": "../../../etc/passwd"},
        {"kid": None},
        {"typ": "JWT"},
        {"typ": "jwt+at"},
        {"typ": None},
        {"jku": "https://evil.example/jwks.json"},
        {"jwk": {"kty": "oct", "k": "AAAA"}},
        {"crit": ["exp"]},
    ],
)
async def test_a_header_that_says_anything_else_is_refused(service: Running, tokens, header):
    """Fails without the comparison of fields or `typ` in access_token._kid_of, or the look-up by kid."""
    await refused(service, bearer(forged(service, tokens, header=header)), "invalid_token")


@pytest.mark.parametrize(
    "name", ["iss", "aud", "sub", "sid", "iat", "exp", "jti", "auth_time", "amr", "roles"]
)
async def test_every_claim_is_required_and_of_its_type(service: Running, tokens, name):
    await refused(service, bearer(forged(service, tokens, **{name: None})), "invalid_token")
    await refused(service, bearer(forged(service, tokens, **{name: {"not": "this"}})), "invalid_token")


async def test_another_issuer_or_audience_is_refused(service: Running, tokens):
    """Fails without `issuer` or `audience` in access_token._decode."""
    await refused(service, bearer(forged(service, tokens, iss="http://evil.example")), "invalid_token")
    await refused(service, bearer(forged(service, tokens, aud="another")), "invalid_token")
    await refused(service, bearer(forged(service, tokens, aud=["another"])), "invalid_token")


async def test_an_audience_of_any_letters_makes_no_broken_header(make_settings, clock):
    """Fails without the replacement in bearer.challenge: the response can't even be sent."""
    async with running(make_settings(audience='the "API" of Zoë'), clock) as service:
        token = forged(service, await service.sign_up(), aud="another")
        challenge = await refused(service, bearer(token), "invalid_token")
    assert challenge.endswith('"The token has the wrong audience; this service expects the ?API? of Zo?."')


async def test_a_lifetime_of_an_hour_is_refused(service: Running, tokens):
    """Fails without the comparison with LONGEST_TTL in access_token.verify."""
    now = int(service.clock().timestamp())
    await refused(service, bearer(forged(service, tokens, exp=now + 3600)), "invalid_token")
    assert (
        await service.get("/protected", {"access_token": forged(service, tokens, exp=now + 300)})
    ).is_success


async def test_a_token_dies_at_exp_to_the_second(service: Running, tokens):
    """Fails without the comparison of `exp` in access_token.refuse_expired."""
    service.clock.move(59.999)
    assert (await service.get("/protected", tokens)).status_code == 200
    service.clock.move(0.001)
    challenge = await refused(service, bearer(tokens), "expired_token")
    assert challenge.startswith('Bearer error="invalid_token"')


async def test_a_token_from_the_future_is_refused_beyond_five_seconds(service: Running, tokens):
    """Fails without the comparison with IAT_LEEWAY in access_token.is_ahead."""
    now = int(service.clock().timestamp())
    assert (
        await service.get("/protected", {"access_token": forged(service, tokens, iat=now + 5)})
    ).is_success
    await refused(service, bearer(forged(service, tokens, iat=now + 6)), "invalid_token")


async def test_a_refresh_token_is_no_access_token(service: Running, tokens):
    await refused(service, bearer(tokens["refresh_token"]), "invalid_token")


async def test_a_users_own_claims_are_in_the_token_but_never_in_our_name(service: Running, tokens):
    """Fails without the filter by RESERVED_CLAIMS in Issuer._access_token."""
    async with service.container.store.begin() as tx:
        own = {"tenant": "acme", "roles": ["admin"], "sub": "user_other", "scope": "all"}
        await tx.connection.execute(sa.update(users).values(claims=own))
    claims = jwt.decode((await service.log_in())["access_token"], options={"verify_signature": False})
    assert claims["tenant"] == "acme"
    assert (claims["roles"], claims["sub"]) == ([], tokens["user"]["id"])
    assert "scope" not in claims


@pytest.mark.parametrize("at", [0, 2], ids=["header", "signature"])
async def test_a_segment_that_no_token_of_ours_has_is_refused_before_it_is_decoded(
    service: Running, tokens, at
):
    """Fails without `_MAX_HEADER` or `_MAX_SIGNATURE`: PyJWT took 0.5 ms for such a token."""
    parts = tokens["access_token"].split(".")
    parts[at] = urlsafe_b64encode(b'{"alg":"ES256"}' + b" " * 5_000).decode().rstrip("=")
    answer = await service.client.get("/protected", headers=bearer(".".join(parts)))
    assert (answer.json()["code"], answer.json()["detail"]) == ("invalid_token", "This is not a JWT.")


@pytest.mark.parametrize("sent", ["Basic abc", "Bearer good"])
async def test_the_challenge_of_another_credential_has_no_error_of_the_access_token(
    service: Running, tokens, sent
):
    """Fails without `_NOT_OF_THE_ACCESS_TOKEN`: a client would refresh, and send a wrong password twice."""
    headers = {"Authorization": sent.replace("good", tokens["access_token"])}
    wrong = {"username": "ada", "password": "wrong horse battery"}
    for path, body in (("/login", wrong), ("/refresh", {"refresh_token": "sr_"})):
        answer = await service.client.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
