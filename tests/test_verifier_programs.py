"""The verifier in real programs: forks, several event loops, WebSockets, and responses without an end."""

import asyncio
import contextlib
import gzip
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import httpx
import jwt
import pytest
import uvicorn
import websockets.sync.client as websocket
from fastapi import Depends, FastAPI, WebSocket
from websockets.exceptions import InvalidStatus

from sessionapi import ids
from sessionapi.errors import ExpiredToken, InvalidToken, SessionRevoked, Unavailable
from sessionapi.keys import keyring
from sessionapi.metrics import Metrics
from sessionapi.tokens import access_token
from sessionapi.users.breached_passwords import BreachedPasswords
from sessionapi.verifier import AsyncVerifier, Claims, Verifier
from sessionapi.verifier.asgi import Protect
from sessionapi.verifier.fastapi import Bearer
from sessionapi.verifier.state import Limits
from tests.support.api_client import bearer
from tests.support.clock import FakeClock
from tests.support.server import Server, serving
from tests.support.settings import environment
from tests.support.waiting import eventually
from tests.test_verifier import told_by_the_verifier

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Starlette's client needs another HTTP library than httpx
    from starlette.testclient import TestClient

ISSUER = "http://localhost:8000"
SOON = 30
"""Seconds within which something must happen that takes a fraction of a second."""


@dataclass
class Issuer:
    """A real server, and a service token for it."""

    server: Server
    service_token: str

    @property
    def options(self) -> dict:
        limits = Limits(cooldown=0)
        return {
            "url": self.server.url,
            "service_token": self.service_token,
            "poll": 0.05,
            "limits": limits,
        }

    def log_out(self, tokens: dict) -> None:
        answer = httpx.post(f"{self.server.url}/logout", headers=bearer(tokens))
        assert answer.status_code == 204


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    data = tmp_path_factory.mktemp("issuer") / "var"
    with serving(data, log_level="warning") as server:
        server.sign_up()
        made = command(server, "service-tokens", "add", "shop")
        yield Issuer(server, made)


def command(server: Server, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sessionapi", *arguments],
        env=environment(server.data),
        cwd=server.data.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def refused(verify: Callable[[], object]) -> bool:
    try:
        verify()
    except SessionRevoked:
        return True
    return False


FORK = """
import os, sys, time, threading
from sessionapi.errors import SessionRevoked
from sessionapi.verifier import Verifier

url, service_token, token = sys.argv[1:]
verifier = Verifier("http://localhost:8000", url=url, service_token=service_token, poll=0.05)
verifier.verify(token)
held = threading.Event()

def hold():
    with verifier._core._cache._changing, verifier._state.fetching, verifier._state.starting:
        held.set()
        time.sleep(600)

threading.Thread(target=hold, daemon=True).start()
held.wait()
if os.fork():
    os.wait()
    os._exit(0)
verifier.verify(token)
print("accepted", flush=True)
deadline = time.monotonic() + 30
while time.monotonic() < deadline:
    try:
        verifier.verify(token)
    except SessionRevoked:
        print("refused", flush=True)
        os._exit(0)
    time.sleep(0.01)
print("still accepted", flush=True)
os._exit(1)
"""


@pytest.mark.server
def test_a_child_of_a_fork_learns_of_a_logout_whatever_lock_was_held(issuer: Issuer, tmp_path: Path):
    """Fails without register_at_fork: the child has no thread, and its locks are never released."""
    script = tmp_path / "forks.py"
    script.write_text(FORK)
    good = issuer.server.log_in()
    arguments = (issuer.server.url, issuer.service_token, good["access_token"])
    program = subprocess.Popen(
        [sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert program.stdout
        assert program.stdout.readline() == "accepted\n"
        issuer.log_out(good)
        assert program.stdout.readline() == "refused\n"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
        program.communicate()


@pytest.mark.server
def test_a_second_event_loop_learns_of_a_logout_and_of_a_new_key(issuer: Issuer):
    """Fails without AsyncVerifier._here: the tasks of the first loop have ended with it."""
    verifier = AsyncVerifier(ISSUER, **issuer.options)
    good = issuer.server.log_in()
    asyncio.run(verifier.verify(good["access_token"]))
    issuer.log_out(good)
    eventually(lambda: refused(lambda: asyncio.run(verifier.verify(good["access_token"]))), SOON)
    command(issuer.server, "keys", "rotate", "--now")
    new = eventually(lambda: signed_by_another_key(issuer.server, good), SOON)
    assert asyncio.run(verifier.verify(new["access_token"])).session_id == new["session_id"]


def signed_by_another_key(server: Server, old: dict) -> dict | None:
    new = server.log_in()
    same = access_token.key_id(new["access_token"]) == access_token.key_id(old["access_token"])
    return None if same else new


@pytest.mark.server
def test_two_event_loops_at_once_both_follow(issuer: Issuer):
    verifier = AsyncVerifier(ISSUER, **issuer.options)
    good = issuer.server.log_in()
    accepted, found = threading.Barrier(3), []

    async def until_refused() -> str:
        await verifier.verify(good["access_token"])
        await asyncio.to_thread(accepted.wait, SOON)
        deadline = time.monotonic() + SOON
        while time.monotonic() < deadline:
            try:
                await verifier.verify(good["access_token"])
            except SessionRevoked as ended:
                return ended.reason
            await asyncio.sleep(0.01)
        return "still accepted"

    threads = [threading.Thread(target=lambda: found.append(asyncio.run(until_refused()))) for _ in range(2)]
    for each in threads:
        each.start()
    accepted.wait(SOON)
    issuer.log_out(good)
    for each in threads:
        each.join()
    assert found == ["logout", "logout"]


@pytest.mark.server
def test_a_loop_that_is_run_now_and_then_waits_for_a_new_list(issuer: Issuer):
    """Fails without Rounds.halted: the first token after the pause is verified with the old list."""
    verifier = AsyncVerifier(ISSUER, **issuer.options)
    good = issuer.server.log_in()
    loop = asyncio.new_event_loop()
    try:
        loop.run_until_complete(verifier.verify(good["access_token"]))
        issuer.log_out(good)
        time.sleep(1.2)  # the pause itself is tested: longer than a poll and its slack
        with pytest.raises(SessionRevoked):
            loop.run_until_complete(verifier.verify(good["access_token"]))
        loop.run_until_complete(verifier.aclose())
    finally:
        loop.close()


@pytest.mark.server
def test_a_test_client_uses_a_loop_for_each_request_and_logouts_are_learnt(issuer: Issuer):
    app = FastAPI()
    verifier = AsyncVerifier(ISSUER, **issuer.options)

    @app.get("/mine")
    async def mine(claims: Annotated[Claims, Depends(Bearer(verifier))]) -> str:
        return claims.session_id

    good = issuer.server.log_in()
    client = TestClient(app)
    for _ in range(2):
        assert client.get("/mine", headers=bearer(good)).json() == good["session_id"]
    issuer.log_out(good)
    eventually(lambda: client.get("/mine", headers=bearer(good)).status_code == 401, SOON)


@pytest.mark.server
def test_a_verifier_that_was_closed_begins_again(issuer: Issuer):
    good = issuer.server.log_in()
    verifier = Verifier(ISSUER, **issuer.options)
    for _ in range(2):
        assert verifier.verify(good["access_token"]).session_id == good["session_id"]
        verifier.close()
        assert not [each for each in threading.enumerate() if each.name == "revocations"]
    issuer.log_out(good)
    with pytest.raises(SessionRevoked):
        verifier.verify(good["access_token"])
    verifier.close()


def test_a_thread_that_can_not_be_started_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, clock: FakeClock
):
    """As at the end of the interpreter: the token is verified, and the missing updates are logged."""
    verifier = Verifier(ISSUER, jwks={"keys": [usable("key_1")]}, service_token="st_x", clock=clock)

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(InvalidToken):
        verifier.verify("a.b.c")
    assert "can't start new thread" in told_by_the_verifier(caplog)[0]


def usable(kid: str) -> dict:
    return keyring.public_jwk(kid, "ES256", keyring.generate("ES256"))


WRONG = [None, 5, 5.5, True, [], ["ES256"], {}, {"a": 1}, "", "é", "\x00", "A" * 100_000, 2**70]


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
def test_a_key_with_a_member_of_any_type_leaves_the_others_alone(algorithm: str, clock: FakeClock):
    """Fails without the `except Exception` in verifier.state.read_key."""
    private = keyring.generate("ES256")
    good = keyring.public_jwk("key_good", "ES256", private)
    strange = keyring.public_jwk("key_1", algorithm, keyring.generate(algorithm))
    keys: list = [*WRONG, good]
    for name in strange:
        keys += [{**strange, name: wrong} for wrong in WRONG if wrong != "" or name != "kid"]
    keys += [{**strange, "key_ops": wrong, "x5c": wrong, "d": wrong} for wrong in WRONG]
    verifier = Verifier(ISSUER, jwks={"keys": keys}, clock=clock)
    now = int(clock().timestamp())
    claims = {
        "iss": ISSUER,
        "aud": "sessionapi",
        "sub": ids.public("user", ids.new_id()),
        "sid": ids.public("sess", ids.new_id()),
        "iat": now,
        "exp": now + 60,
        "jti": "x",
        "auth_time": now,
        "amr": ["pwd"],
        "roles": [],
    }
    signed = jwt.encode(claims, private, "ES256", {"kid": "key_good", "typ": access_token.TYPE})
    assert verifier.verify(signed).session_id == claims["sid"]


def head(*more: str) -> bytes:
    return "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: application/json", *more, "", ""]).encode()


MUCH = 64 * 2**20
"""Bytes of a response of which only the first few are gzip."""
BOMB = gzip.compress(b" " * 200 * 2**20, compresslevel=9)
PLAIN = json.dumps({"keys": [], "filler": "x" * 2**20}).encode()


def drops(connection: socket.socket, before: bytes, stop: threading.Event) -> None:
    connection.sendall(before)
    while not stop.wait(0.05):
        connection.sendall(b"a")


def endless(connection: socket.socket, before: bytes, stop: threading.Event) -> None:
    connection.sendall(before)
    while not stop.is_set():
        connection.sendall(b"a" * 2**16)


def at_once(connection: socket.socket, before: bytes, stop: threading.Event) -> None:
    connection.sendall(before)
    stop.wait()


HOSTILE = {
    "silence": (at_once, b"", "within 0.5 s"),
    "head in drops": (drops, b"HTTP/1.1 200 OK\r\nX: ", "within 0.5 s"),
    "body in drops": (drops, head("Content-Length: 100000"), "within 0.5 s"),
    "body without end": (endless, head(), "larger than|within 0.5 s"),
    "large": (at_once, head(f"Content-Length: {len(PLAIN)}") + PLAIN, "larger than"),
    "bomb": (at_once, head("Content-Encoding: gzip", f"Content-Length: {len(BOMB)}") + BOMB, "larger than"),
    "zstd": (at_once, head("Content-Encoding: zstd", "Content-Length: 1") + b"x", "not requested"),
    "more behind gzip": (
        at_once,
        head("Content-Encoding: gzip", f"Content-Length: {MUCH}") + gzip.compress(b"{}").ljust(MUCH, b"x"),
        "continues after the end",
    ),
    "no gzip": (at_once, head("Content-Encoding: gzip", "Content-Length: 2") + b"{}", "not gzip"),
    "cut gzip": (
        at_once,
        head("Content-Encoding: gzip", "Content-Length: 20") + gzip.compress(b"{}" * 99)[:20],
        "incomplete",
    ),
}


@contextmanager
def hostile(name: str) -> Iterator[str]:
    """An issuer on raw sockets that sends a hostile response to each request, until the block ends."""
    send, before, _ = HOSTILE[name]
    stop, threads = threading.Event(), []
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connection: socket.socket) -> None:
        with connection:
            try:
                connection.recv(2**16)
                send(connection, before, stop)
            except OSError:
                pass

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=answer, args=(connection,), daemon=True))
            threads[-1].start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for each in [accepting, *threads]:
            each.join(10)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_verifier_waits_and_reads_within_bounds(name: str, caplog: pytest.LogCaptureFixture):
    """Fails without bounded_http: a token waits for as long as the issuer sends anything."""
    said = HOSTILE[name][2]
    caplog.set_level(logging.WARNING)
    with hostile(name) as url:
        options = {"url": url, "limits": Limits(fetch=0.5), "poll": 0.05}
        began = time.monotonic()
        with pytest.raises(Unavailable, match=said), Verifier(ISSUER, **options) as verifier:
            verifier.verify("a.b.c")
        with pytest.raises(Unavailable, match=said):
            asyncio.run(AsyncVerifier(ISSUER, **options).verify("a.b.c"))
        assert time.monotonic() - began < SOON


@pytest.mark.parametrize("name", ["head in drops", "body in drops", "silence", "zstd"])
def test_a_list_that_does_not_end_is_logged_and_following_goes_on(
    name: str, caplog: pytest.LogCaptureFixture
):
    said = HOSTILE[name][2]
    with hostile(name) as url:
        options = {"url": url, "limits": Limits(fetch=0.5), "poll": 0.05, "service_token": "st_x"}
        with Verifier(ISSUER, **options) as verifier:
            with pytest.raises(Unavailable):
                verifier.verify("a.b.c")
            assert verifier._following.is_alive()
        with pytest.raises(Unavailable):
            asyncio.run(AsyncVerifier(ISSUER, **options).verify("a.b.c"))
    lines = [line for line in told_by_the_verifier(caplog) if "/revocations" in line]
    assert len(lines) == 2
    assert all(said in line for line in lines)


@pytest.mark.parametrize("name", ["head in drops", "body in drops", "bomb", "body without end"])
def test_the_service_of_leaked_passwords_is_waited_for_and_read_within_bounds(name: str):
    """Fails without bounded_http in breached_passwords.py: a bomb is unpacked whole."""
    metrics = Metrics()
    with hostile(name) as url:
        began = time.monotonic()
        tracemalloc.start()
        assert asyncio.run(BreachedPasswords(url, metrics).contains("password")) is False
        _, largest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert time.monotonic() - began < SOON
        assert largest < 32 * 2**20
    assert metrics.breach_checks.labels("failed")._value.get() == 1


def test_a_packed_answer_of_the_right_size_is_read(clock: FakeClock):
    content = gzip.compress(json.dumps({"keys": [usable("key_1")]}).encode())
    HOSTILE["good"] = (
        at_once,
        head("Content-Encoding: gzip", f"Content-Length: {len(content)}") + content,
        "",
    )
    with (
        hostile("good") as url,
        Verifier(ISSUER, url=url, clock=clock) as verifier,
        pytest.raises(InvalidToken),
    ):
        verifier.verify("a.b.c")
    del HOSTILE["good"]


def signed_at(clock: FakeClock, seconds: int) -> tuple[str, dict]:
    """Return a token whose `iat` is the given seconds from now, for 60 s, and the JWKS that verifies it."""
    private = keyring.generate("ES256")
    now = int(clock().timestamp()) + seconds
    who = {"sub": ids.public("user", ids.new_id()), "sid": ids.public("sess", ids.new_id())}
    times = {"iat": now, "exp": now + 60, "auth_time": now}
    claims = {"iss": ISSUER, "aud": "sessionapi", "jti": "x", "amr": ["pwd"], "roles": [], **who, **times}
    signed = jwt.encode(claims, private, "ES256", {"kid": "key_1", "typ": access_token.TYPE})
    return signed, {"keys": [keyring.public_jwk("key_1", "ES256", private)]}


@pytest.mark.parametrize(("leeway", "ahead", "late"), [(0, 5, 0), (5, 5, 5), (30, 30, 30)])
def test_leeway_holds_for_exp_and_where_it_is_more_than_5_s_for_iat(
    leeway: int, ahead: int, late: int, clock: FakeClock
):
    """Fails without `rules.leeway` in access_token.is_ahead, or in the checks of a cached token."""
    token, jwks = signed_at(clock, ahead)
    verifier = Verifier(ISSUER, jwks=jwks, clock=clock, leeway=leeway)
    verifier.verify(token)
    clock.move(-0.001)
    with pytest.raises(InvalidToken, match="future"):
        verifier.verify(token)
    clock.move(0.001 + ahead + 60 + late - 0.001)
    verifier.verify(token)
    clock.move(0.001)
    with pytest.raises(ExpiredToken):
        verifier.verify(token)


@contextmanager
def served(app: Callable) -> Iterator[str]:
    """Serve an app on uvicorn in a thread; yields its URL for WebSockets."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    server.install_signal_handlers = lambda: None
    thread = threading.Thread(target=server.run)
    thread.start()
    eventually(lambda: server.started)
    try:
        yield f"ws://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def websocket_app(verifier: AsyncVerifier, *, protected: bool) -> Callable:
    app = FastAPI()

    @app.websocket("/bearer")
    async def with_bearer(socket: WebSocket, claims: Annotated[Claims, Depends(Bearer(verifier))]) -> None:
        await socket.accept()
        await socket.send_text(claims.session_id)
        await socket.close()

    @app.websocket("/protected")
    async def with_middleware(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text(socket.scope["state"]["claims"].session_id)
        await socket.close()

    return Protect(app, verifier) if protected else app


@pytest.mark.parametrize(("path", "protected"), [("/bearer", False), ("/protected", True)])
def test_a_websocket_is_accepted_with_a_good_token_and_else_refused_before_it_is(
    path: str, protected: bool, clock: FakeClock
):
    """Fails if Bearer takes a Request: in a WebSocket's route that is a TypeError."""
    token, jwks = signed_at(clock, 0)
    verifier = AsyncVerifier(ISSUER, jwks=jwks, clock=clock)
    with served(websocket_app(verifier, protected=protected)) as url:
        with websocket.connect(f"{url}{path}", additional_headers=bearer(token)) as connection:
            assert (
                connection.recv()
                == access_token.verify(
                    token, lambda _: verifier._core._keys_get("key_1"), verifier._core.rules, clock()
                ).session_id
            )
        for headers in ({}, bearer("nonsense")):
            with pytest.raises(InvalidStatus) as refusal:
                websocket.connect(f"{url}{path}", additional_headers=headers)
            assert refusal.value.response.status_code == 401
            assert refusal.value.response.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(("path", "protected"), [("/bearer", False), ("/protected", True)])
def test_a_server_that_can_not_deny_a_websocket_closes_it(path: str, protected: bool, clock: FakeClock):
    """Like Daphne and older servers, it has no websocket.http.response."""
    verifier = AsyncVerifier(ISSUER, jwks={"keys": [usable("key_1")]}, clock=clock)
    sent: list = []

    async def receive() -> dict:
        return {"type": "websocket.connect"}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "asgi": {"version": "3.0"},
        "path": path,
        "headers": [],
        "query_string": b"",
        "subprotocols": [],
    }
    asyncio.run(websocket_app(verifier, protected=protected)(scope, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008, "reason": "missing_token"}]


@pytest.mark.parametrize("name", ["head in drops", "body without end", "bomb", "more behind gzip"])
@pytest.mark.requirement("CWE-400, CWE-409")
def test_an_issuer_can_not_hold_a_verifier_up_nor_fill_its_memory(name: str):
    """Fails without Bounds in bounded_http: the bomb has 200 MB, and the slow response never ends."""
    with hostile(name) as url:
        tracemalloc.start()
        began = time.monotonic()
        options = {"url": url, "limits": Limits(fetch=0.5)}
        with pytest.raises(Unavailable), Verifier("http://localhost:8000", **options) as verifier:
            verifier.verify("a.b.c")
        with pytest.raises(Unavailable):
            asyncio.run(AsyncVerifier("http://localhost:8000", **options).verify("a.b.c"))
        assert time.monotonic() - began < SOON
        _, largest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert largest < 32 * 2**20
