"""The verifier for other services: against the real app on a real port, under a fake clock."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Annotated

import httpx
import jwt
import pytest
import uvicorn
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from fastapi import Depends, FastAPI

from sessionapi import ids
from sessionapi.errors import ExpiredToken, InvalidToken, SessionRevoked, StartupError, Unavailable
from sessionapi.keys import keyring
from sessionapi.tokens import access_token
from sessionapi.verifier import AsyncVerifier, Claims, Verifier
from sessionapi.verifier.asgi import Protect
from sessionapi.verifier.fastapi import Bearer
from sessionapi.verifier.state import Limits, max_age_of, read_key
from tests.support.api_client import bearer
from tests.support.app import Running, running
from tests.support.clock import FakeClock

pytestmark = pytest.mark.engines("sqlite")  # nothing here depends on the database

ISSUER = "http://localhost:8000"


@asynccontextmanager
async def listening(service: Running) -> AsyncIterator[str]:
    """Serve the app of a test on a separate port; the app goes on when the port is closed."""
    app = service.client._transport.app
    config = uvicorn.Config(app, port=0, lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


def fetches(service: Running, path: str = "/.well-known/jwks.json") -> int:
    found = [
        sample.value
        for metric in service.container.metrics.requests.collect()
        for sample in metric.samples
        if sample.name.endswith("_total") and sample.labels["route"] == path
    ]
    return int(sum(found))


async def until(condition) -> None:
    """Wait until another task has made the condition true, within the timeout of the test."""
    while not condition():
        await asyncio.sleep(0.01)


async def test_fifty_waiters_share_one_fetch_and_get_the_claims(service: Running, clock: FakeClock):
    tokens = await service.sign_up()
    async with listening(service) as url, AsyncVerifier(ISSUER, url=url, clock=clock) as verifier:
        found = await asyncio.gather(*(verifier.verify(tokens["access_token"]) for _ in range(50)))
    assert {claims.session_id for claims in found} == {tokens["session_id"]}
    assert found[0].user_id == tokens["user"]["id"]
    assert fetches(service) == 1
    with pytest.raises(AttributeError):
        found[0].user_id = "another"


async def test_threads_share_one_fetch_too(service: Running, clock: FakeClock):
    tokens = await service.sign_up()
    async with listening(service) as url:
        with Verifier(ISSUER, url=url, clock=clock) as verifier:
            found = await asyncio.gather(
                *(asyncio.to_thread(verifier.verify, tokens["access_token"]) for _ in range(8))
            )
    assert {claims.session_id for claims in found} == {tokens["session_id"]}
    assert fetches(service) == 1


async def test_keys_are_renewed_ahead_of_time(service: Running, clock: FakeClock):
    async with listening(service) as url, AsyncVerifier(ISSUER, url=url, clock=clock) as verifier:
        await verifier.verify((await service.sign_up())["access_token"])
        clock.move(239)
        await verifier.verify((await service.log_in())["access_token"])
        assert fetches(service) == 1
        clock.move(1)
        await verifier.verify((await service.log_in())["access_token"])
        await until(lambda: fetches(service) == 2)


async def test_ten_thousand_forged_key_ids_make_one_request(service: Running, clock: FakeClock):
    """Fails without the cooldown in Core.may_try."""
    good = await service.sign_up()
    claims = jwt.decode(good["access_token"], options={"verify_signature": False})
    key = ec.generate_private_key(ec.SECP256R1())
    template = jwt.encode(claims, key, "ES256", {"kid": "key_a", "typ": access_token.TYPE}).partition(".")[2]
    async with listening(service) as url, AsyncVerifier(ISSUER, url=url, clock=clock) as verifier:
        await verifier.verify(good["access_token"])
        clock.move(10)
        for number in range(10_000):
            header = jwt.utils.base64url_encode(
                f'{{"alg":"ES256","kid":"key_{number}","typ":"at+jwt"}}'.encode()
            ).decode()
            with pytest.raises(InvalidToken):
                await verifier.verify(f"{header}.{template}")
        assert fetches(service) == 2
        assert len(verifier._core._cache) == 1


async def test_while_the_issuer_is_away_its_keys_are_kept_and_then_it_fails_closed(
    service: Running, clock: FakeClock
):
    """Fails without Core._refuse_without_keys."""
    async with listening(service) as url:
        verifier = AsyncVerifier(ISSUER, url=url, clock=clock)
        await verifier.verify((await service.sign_up())["access_token"])
    for _ in range(12):
        clock.move(290)
        await verifier.verify((await service.log_in())["access_token"])
        await until(lambda: verifier._fetching is None or verifier._fetching.done())
    clock.move(300)
    with pytest.raises(Unavailable, match=r"The keys of http://localhost:8000 are \d+ s old and can't"):
        await verifier.verify((await service.log_in())["access_token"])
    await verifier.aclose()


async def test_without_any_keys_the_error_says_why_and_the_issuer_is_not_flooded(clock: FakeClock):
    async with AsyncVerifier(ISSUER, url="http://127.0.0.1:9", clock=clock) as verifier:
        for _ in range(3):
            with pytest.raises(Unavailable, match="can't be fetched: ConnectError"):
                await verifier.verify("a.b.c")


async def test_a_new_key_is_fetched_and_a_dropped_one_refused(service: Running, clock: FakeClock):
    async with listening(service) as url, AsyncVerifier(ISSUER, url=url, clock=clock) as verifier:
        old = await service.sign_up()
        await verifier.verify(old["access_token"])
        await service.container.keys.rotate_now()
        await service.container.keys.load()
        clock.move(10)
        new = await service.log_in()
        await verifier.verify(new["access_token"])
        await verifier.verify(old["access_token"])
        kid = jwt.get_unverified_header(old["access_token"])["kid"]
        await service.container.keys.drop(kid)
        await service.container.keys.load()
        clock.move(10)
        with pytest.raises(InvalidToken):
            await verifier.verify(tokens_of_unknown_key(new))
        with pytest.raises(InvalidToken):
            await verifier.verify(old["access_token"])


def tokens_of_unknown_key(like: dict) -> str:
    """Return a token that makes a verifier fetch the keys again."""
    claims = jwt.decode(like["access_token"], options={"verify_signature": False})
    kid = ids.public("key", ids.new_id())
    return jwt.encode(
        claims, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": kid, "typ": access_token.TYPE}
    )


async def test_with_a_service_token_ended_sessions_and_changed_keys_are_followed(
    service: Running, clock: FakeClock
):
    """Fails without `ended` in Core.verify."""
    secret = await service.container.service_tokens.add("shop")
    options = {"clock": clock, "service_token": secret, "poll": 0.05}
    async with listening(service) as url, AsyncVerifier(ISSUER, url=url, **options) as verifier:
        with Verifier(ISSUER, url=url, **options) as threaded:
            first, second = await service.sign_up(), await service.log_in()
            for each in (first, second):
                await verifier.verify(each["access_token"])
                await asyncio.to_thread(threaded.verify, each["access_token"])
            await service.client.post("/logout", headers=bearer(first))
            await until(lambda: verifier._core._ended and threaded._core._ended)
            with pytest.raises(SessionRevoked) as told:
                await verifier.verify(first["access_token"])
            assert told.value.reason == "logout"
            with pytest.raises(SessionRevoked):
                await asyncio.to_thread(threaded.verify, first["access_token"])
            await service.container.keys.drop(service.container.ring.active.kid)
            await service.container.keys.load()
            fresh = await service.log_in()
            kid = jwt.get_unverified_header(fresh["access_token"])["kid"]
            await until(lambda: verifier._core._keys_get(kid) and threaded._core._keys_get(kid))
            await verifier.verify(fresh["access_token"])
            with pytest.raises(InvalidToken):
                await verifier.verify(second["access_token"])


async def test_a_list_that_cannot_be_had_is_told_once_and_so_is_its_return(
    service: Running, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    good = await service.container.service_tokens.add("shop")
    options = {"clock": clock, "service_token": "st_wrong"}
    async with listening(service) as url, AsyncVerifier(ISSUER, url=url, **options) as verifier:
        for service_token in ("st_wrong", "st_wrong", good, "st_wrong", good):
            verifier._service_token = service_token
            verifier._take_revocations(await verifier._send(verifier._revocations_request()))
        clock.move(60)
        verifier._take_revocations(await verifier._send(verifier._revocations_request()))
    assert told_by_the_verifier(caplog) == [
        f"GET {url}/revocations: the response is 401 (is the service token right?); tokens of ended sessions "
        "are now accepted until they expire",
        "tokens of ended sessions are refused immediately again",
    ]


def told_by_the_verifier(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "sessionapi.verifier"]


@pytest.mark.parametrize("token", ["st_SECRET\n", " st_SECRET\r\n"])
async def test_a_service_token_from_a_file_works_and_is_never_told(
    service: Running, clock: FakeClock, caplog: pytest.LogCaptureFixture, token: str
):
    """Fails without `strip` in verifier.common._checked: the HTTP library's error repeats the header."""
    async with (
        listening(service) as url,
        AsyncVerifier(
            ISSUER, url=url.replace("//", "//bob:hunter@"), clock=clock, service_token=token
        ) as verifier,
    ):
        await verifier.verify((await service.sign_up())["access_token"])
    assert "the response is 401" in told_by_the_verifier(caplog)[0]
    assert not any(secret in caplog.text for secret in ("SECRET", "hunter"))
    with pytest.raises(StartupError) as refused:
        AsyncVerifier(ISSUER, service_token="st_SEC\nRET")
    assert "RET" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "etag"),
    [
        (b"[" * 100_000, '"1"'),
        (b'{"revoked": 1}', '"1"'),
        (b'{"revoked": [1], "keys": ""}', '"1"'),
        (b'{"revoked": [], "keys": ""}', '"\xe9"'),
    ],
    ids=["deep", "number", "numbers", "etag"],
)
async def test_whatever_the_list_is_the_verifier_goes_on(
    content: bytes, etag: str, clock: FakeClock, caplog: pytest.LogCaptureFixture
):
    """Fails without `_log_exceptions`: updates stop, and the first token waits without end."""
    with answering(200, content, etag) as url:
        async with AsyncVerifier(ISSUER, url=url, service_token="st_x", clock=clock, poll=0.01) as verifier:
            with pytest.raises(Unavailable):
                await verifier.verify("a.b.c")
            await until(lambda: told_by_the_verifier(caplog))
            assert not verifier._following.done()


async def test_a_process_that_starts_after_a_revocation_knows_it_with_its_first_token(
    service: Running, clock: FakeClock
):
    secret = await service.container.service_tokens.add("shop")
    tokens = await service.sign_up()
    await service.client.post("/logout", headers=bearer(tokens))
    options = {"clock": clock, "service_token": secret}
    async with listening(service) as url, AsyncVerifier(ISSUER, url=url, **options) as verifier:
        with pytest.raises(SessionRevoked):
            await verifier.verify(tokens["access_token"])


async def test_a_remembered_token_dies_at_its_end(service: Running, clock: FakeClock):
    """Fails without refuse_expired in TokenCache.verify. The leeway of a verifier is 5 s."""
    tokens = await service.sign_up()
    jwks = service.container.ring.jwks()
    verifier = Verifier(ISSUER, jwks=jwks, clock=clock)
    verifier.verify(tokens["access_token"])
    clock.move(64.999)
    verifier.verify(tokens["access_token"])
    clock.move(0.001)
    with pytest.raises(ExpiredToken):
        verifier.verify(tokens["access_token"])
    clock.move(-100)
    with pytest.raises(InvalidToken, match="future"):
        verifier.verify(tokens["access_token"])


def test_fixed_keys_need_no_network_and_must_be_usable(clock: FakeClock):
    with pytest.raises(StartupError):
        Verifier(ISSUER, jwks={"keys": []}, clock=clock)


async def test_a_token_of_one_algorithm_is_refused_under_a_key_of_another(make_settings, clock: FakeClock):
    """Fails without `algorithms=[key.algorithm]` in access_token._decode."""
    async with running(make_settings(algorithm="RS256"), clock) as service:
        good = await service.sign_up()
        verifier = Verifier(ISSUER, jwks=service.container.ring.jwks(), clock=clock)
        assert verifier.verify(good["access_token"]).session_id == good["session_id"]
        claims = jwt.decode(good["access_token"], options={"verify_signature": False})
        kid = service.container.ring.active.kid
        other = jwt.encode(
            claims, ec.generate_private_key(ec.SECP256R1()), "ES256", {"kid": kid, "typ": access_token.TYPE}
        )
        with pytest.raises(InvalidToken):
            verifier.verify(other)
        assert (await service.get("/protected", {"access_token": other})).json()["code"] == "invalid_token"


def usable() -> dict:
    return keyring.public_jwk("key_1", "ES256", keyring.generate("ES256"))


@pytest.mark.parametrize(
    "changes",
    [
        {"kid": None},
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS256"},
        {"use": "enc"},
        {"crv": "P-384"},
        {"x": "AAAA"},
        {"d": "AAAA"},
    ],
)
def test_a_key_that_could_not_be_used_safely_is_left_out(changes):
    assert read_key(usable()) is not None
    assert read_key({**usable(), **changes}) is None
    assert read_key("no object") is None


def test_a_short_rsa_key_is_left_out():
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    assert read_key(keyring.public_jwk("key_1", "RS256", short)) is None


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("public, max-age=300", 300),
        ("max-age=0", 1),
        ("max-age=99999999", 86_400),
        ("no-cache", None),
        (None, None),
    ],
)
def test_the_age_of_keys_is_the_issuers_word_within_bounds(header, seconds):
    assert max_age_of(header) == seconds


@contextmanager
def answering(status: int, content: bytes, etag: str = "") -> Iterator[str]:
    """A small HTTP server in a thread that sends the same response every time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("ETag", etag)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "content", "said"),
    [
        (500, b"", "the response is 500"),
        (200, b"<html>", "the response is not JSON"),
        (200, b"[]", "the response is not a JSON object"),
        (200, b'{"keys": []}', "no usable key"),
        (200, b'{"keys": 7}', "no usable key"),
    ],
)
async def test_an_issuer_that_answers_nonsense_is_told(status, content, said):
    with answering(status, content) as url:
        async with AsyncVerifier(
            ISSUER, url=url, service_token="st_x", limits=Limits(cooldown=0)
        ) as verifier:
            with pytest.raises(Unavailable, match=said):
                await verifier.verify("a.b.c")


async def test_the_middleware_protects_all_but_the_public_paths(service: Running, clock: FakeClock):
    tokens = await service.sign_up()
    verifier = AsyncVerifier(ISSUER, jwks=service.container.ring.jwks(), clock=clock)
    app = FastAPI()

    @app.get("/hello")
    @app.get("/health")
    async def hello() -> str:
        return "hello"

    protected = Protect(app, verifier, public=["/health"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(protected), base_url="http://shop") as client:
        assert (await client.get("/health")).status_code == 200
        for path in ("/hello", "/health/", "/health/../hello", "//health", "/HEALTH", "/nowhere"):
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (401, "missing_token")
            assert answer.headers["www-authenticate"] == "Bearer"
        assert (await client.get("/hello", headers=bearer(tokens))).json() == "hello"
        answer = await client.get("/hello", headers=bearer("nonsense"))
        assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
    sent: list = []

    async def send(message):
        sent.append(message)

    await protected({"type": "websocket", "path": "/hello", "headers": []}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "missing_token"}]
    await verifier.aclose()


async def test_the_dependency_gives_a_route_its_claims(service: Running, clock: FakeClock):
    tokens = await service.sign_up()
    verifier = AsyncVerifier(ISSUER, jwks=service.container.ring.jwks(), clock=clock)
    away = AsyncVerifier(ISSUER, url="http://127.0.0.1:9", clock=clock)
    app = FastAPI()

    @app.get("/mine")
    async def mine(claims: Annotated[Claims, Depends(Bearer(verifier))]) -> str:
        return claims.user_id

    @app.get("/away")
    async def none(claims: Annotated[Claims, Depends(Bearer(away))]) -> str:
        return claims.user_id

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        assert (await client.get("/mine", headers=bearer(tokens))).json() == tokens["user"]["id"]
        assert (await client.get("/mine")).json()["detail"]["code"] == "missing_token"
        answer = await client.get("/away", headers=bearer(tokens))
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await verifier.aclose()
    await away.aclose()


async def test_other_peoples_code_verifies_from_the_address_of_the_keys(service: Running):
    tokens = await service.sign_up()
    async with listening(service) as url:
        client = jwt.PyJWKClient(f"{url}/.well-known/jwks.json")
        key = await asyncio.to_thread(client.get_signing_key_from_jwt, tokens["access_token"])
    unchecked = {"verify_exp": False, "verify_iat": False}  # the fake clock is not the system's
    claims = jwt.decode(tokens["access_token"], key, audience="sessionapi", options=unchecked)
    assert claims["sid"] == tokens["session_id"]


def test_importing_the_verifier_is_light():
    code = "import sys, sessionapi.verifier, sessionapi.verifier.asgi; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True).split()
    assert "httpx" in loaded
    for heavy in ("fastapi", "starlette", "sqlalchemy", "pydantic", "uvicorn", "sessionapi.settings"):
        assert heavy not in loaded
    assert not {"pydantic_core", "structlog", "typeid", "uuid_utils"} & set(loaded)
