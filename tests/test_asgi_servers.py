"""The contract of the app under each ASGI server: uvicorn (`sessionapi serve`), Granian and Hypercorn."""

import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.api_client import PASSWORD, bearer
from tests.support.ports import free_port
from tests.support.raw import Connection, chunked, request
from tests.support.server import Server, serving
from tests.support.settings import environment
from tests.support.waiting import eventually

pytestmark = pytest.mark.server

BIN = Path(sys.executable).parent
COMMANDS: dict[str, Callable[[int], list[str]]] = {
    "granian": lambda port: [
        *("granian", "--interface", "asgi", "--host", "127.0.0.1", "--port", str(port)),
        *("--factory", "sessionapi:create_app"),
    ],
    "hypercorn": lambda port: ["hypercorn", "-b", f"127.0.0.1:{port}", "sessionapi:create_app()"],
}
SERVERS = ["serve", *COMMANDS]
CLOSE = "Connection: close"
LOGIN = json.dumps({"username": "ada", "password": PASSWORD}).encode()
JSON = "Content-Type: application/json"


@contextmanager
def started(name: str, data: Path, command: list[str] | None = None, **settings: Any) -> Iterator[Server]:
    """Run a server on the folder `data` until the block ends."""
    if name == "serve":
        with serving(data, **settings) as server:
            yield server
        return
    port = free_port()
    log = data.parent / f"{data.name}.log"
    arguments = command or COMMANDS[name](port)
    with log.open("w") as output:
        process = subprocess.Popen(
            [str(BIN / arguments[0]), *[each.format(port=port) for each in arguments[1:]]],
            env=environment(data, **settings),
            cwd=data.parent,
            stdout=output,
            stderr=output,
            text=True,
            start_new_session=True,
        )
    server = Server(process, data, f"http://127.0.0.1:{port}", [], log)

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{server.url}/readyz").status_code == 200
        return False

    try:
        eventually(ready, 60)
        yield server
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Each server in turn, with the user ada."""
    with started(request.param, tmp_path_factory.mktemp(request.param) / "var") as it:
        it.sign_up()
        yield it


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str | None:
        """Return the code of a problem; None for a server's built-in refusal."""
        return json.loads(self.body)["code"] if b'"code"' in self.body else None


class _Received(io.BytesIO):
    """A server's response, read as if from its socket; `http.client` closes the file after each response."""

    def makefile(self, *_: object) -> "_Received":
        return self

    def close(self) -> None:
        """Keep the file open for the next response."""


def exchange(server: Server, *parts: bytes, methods: tuple[str, ...] = ()) -> list[Response]:
    """Send the parts in separate packets, and return the responses until the server closes."""
    received = b""
    with Connection(server.url) as connection, contextlib.suppress(ConnectionError):
        connection.send(*parts)
        while data := connection.socket.recv(65_536):
            received += data
    stream, found = _Received(received), []
    while stream.tell() < len(received):
        method = methods[len(found)] if len(found) < len(methods) else "GET"
        response = HTTPResponse(stream, method=method)  # type: ignore[arg-type]
        response.begin()
        headers = {name.lower(): value for name, value in response.getheaders()}
        found.append(Response(response.status, headers, response.read()))
    return found


def one(server: Server, *parts: bytes, method: str = "GET") -> Response:
    """Return the only response: more of them would belong to requests that were not sent."""
    [response] = exchange(server, *parts, methods=(method,))
    return response


def test_responses_have_the_security_headers_and_a_request_id(server: Server):
    response = one(server, request("GET", "/healthz", b"", CLOSE, "X-Request-ID: mine"))
    assert (response.status, response.body) == (200, b'{"status":"ok"}')
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["x-request-id"] == "mine"


@pytest.mark.parametrize(
    "lines",
    [
        "GET /healthz HTTP/1.1",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: a",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b",
        "GET /healthz HTTP/1.1\r\nHost:",
        "GET /healthz HTTP/1.1\r\nHost: a b",
        "GET /healthz HTTP/1.1\r\nHost: a@b",
        "GET /healthz",
        "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3",
        "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: +2",
        "POST /login HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999999",
        "POST /login HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Type: text/plain",
        "GET /protected HTTP/1.1\r\nHost: a\r\nCookie: __Host-session=a\r\nCookie: __Host-session=b",
        "GET /protected HTTP/1.1\r\nHost: a\r\nCookie: __Host-device=a; __Host-device=b",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX-A : b",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX-A: b\x00c",
    ],
)
def test_requests_that_contradict_http_are_refused(server: Server, lines: str):
    response = one(server, f"{lines}\r\n{CLOSE}\r\n\r\n{{}} ".encode())
    assert response.status == 400
    assert response.code in ("malformed_request", None)


def test_a_transfer_coding_other_than_chunked_is_refused(server: Server):
    body = chunked("POST", "/login", LOGIN, CLOSE).replace(b"coding: chunked", b"coding: gzip, chunked")
    assert one(server, body).status in (400, 501)


def test_http_1_0_needs_no_host(server: Server):
    assert one(server, b"GET /healthz HTTP/1.0\r\n\r\n").status == 200


def test_two_authorization_headers_are_malformed(server: Server):
    twice = ("Authorization: Bearer a", "Authorization: Bearer b")
    for path in ("/protected", "/me"):
        response = one(server, request("GET", path, b"", CLOSE, *twice))
        assert (response.status, response.code) == (401, "malformed_authorization")


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0", "anything"])
def test_an_upgrade_that_is_not_taken_leaves_the_body_a_body(server: Server, upgrade: str):
    """A body that arrives after the head is not read as a separate request."""
    lines = ("Connection: Upgrade, close", f"Upgrade: {upgrade}", JSON)
    key = ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    smuggled = request("DELETE", "/sessions", b"", *[f"{n}: {v}" for n, v in bearer(server.log_in()).items()])
    for more in ((), key) if upgrade == "websocket" else ((), ("HTTP2-Settings: AAMAAABkAAQAAP__",)):
        # Granian refuses every WebSocket handshake itself, with or without its key.
        for body, statuses in ((LOGIN, (200, 400, 403)), (smuggled, (400, 403))):
            head = request("POST", "/login", b"", *lines, *more, f"Content-Length: {len(body)}")
            response = one(server, head, body)
            assert response.status in (statuses if upgrade == "websocket" else statuses[:1])
    tokens = server.log_in()
    listed = httpx.get(f"{server.url}/sessions", headers=bearer(tokens)).json()
    assert len(listed["items"]) > 1


def test_fields_after_a_chunked_body_are_not_headers(server: Server):
    tokens = server.log_in()
    authorization = f"Authorization: Bearer {tokens['access_token']}"
    trailers = (
        authorization,
        "X-Forwarded-For: 6.6.6.6",
        "X-Request-ID: trailer",
        "Cookie: __Host-session=x",
    )
    for pause in (False, True):
        for path, body in (("/login", LOGIN), ("/me/password", b"{}")):
            whole = chunked("POST", path, body, CLOSE, trailers=trailers)
            at = whole.index(b"0\r\nAuthorization") if pause else len(whole)
            response = one(server, *[part for part in (whole[:at], whole[at:]) if part])
            assert response.headers["x-request-id"] != "trailer"
            assert response.status == (200 if path == "/login" else 401), response.body


def test_nobody_says_where_a_request_comes_from(server: Server):
    """Without TRUSTED_PROXIES the IP address is that of the connection."""
    forwarded = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", "Forwarded: for=6.6.6.6")
    response = one(server, request("POST", "/login", LOGIN, CLOSE, *forwarded, "X-Real-IP: 6.6.6.6"))
    listed = httpx.get(f"{server.url}/sessions", headers=bearer(json.loads(response.body))).json()
    assert {item["ip"] for item in listed["items"]} == {"127.0.0.1"}


def test_head_answers_as_get_without_a_body(server: Server):
    for path in ("/healthz", "/static/pages/session.js", "/session-client.js", "/protected", "/docs"):
        got = one(server, request("GET", path, b"", CLOSE))
        after = request("GET", "/readyz", b"", CLOSE)
        head, following = exchange(server, request("HEAD", path), after, methods=("HEAD", "GET"))
        assert head.status == got.status
        assert head.body == b""
        for name in ("content-type", "content-length", "etag", "cache-control", "www-authenticate"):
            assert head.headers.get(name) == got.headers.get(name), f"{path} {name}"
        assert (following.status, following.body) == (200, b'{"status":"ready"}')


def test_options_and_405_name_the_methods(server: Server):
    for method, status in (("OPTIONS", 204), ("PUT", 405)):
        response = one(server, request(method, "/me", b"", CLOSE))
        assert response.status == status
        assert response.headers["allow"] == "GET, HEAD, PATCH, DELETE, OPTIONS"


def cpu_seconds(server: Server) -> float:
    """Return the CPU time of the server's processes so far."""
    group = subprocess.run(
        ["ps", "-o", "cputimes=", "-s", str(server.process.pid)], capture_output=True, text=True
    )
    return sum(float(line) for line in group.stdout.split())


def memory_peak(server: Server) -> int:
    """Return the largest memory that one of the server's processes has had, in MiB."""
    pids = subprocess.run(["ps", "-o", "pid=", "-s", str(server.process.pid)], capture_output=True, text=True)
    found = [Path(f"/proc/{pid}/status").read_text() for pid in pids.stdout.split()]
    return max(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) for status in found) // 1024


def test_a_hostile_cookie_costs_nothing(server: Server):
    """One of 60 KB took 10 s of CPU time; Hypercorn accepts heads of 16 KB at most."""
    before = cpu_seconds(server)
    for path in ("/healthz", "/me", "/sign-in"):
        for size in (15_000, 60_000):
            cookie = 'Cookie: a="' + "\\" * size + '"'
            assert one(server, request("GET", path, b"", CLOSE, cookie)).status in (200, 400, 401)
    assert cpu_seconds(server) - before < 4


def test_64_kb_of_unknown_fields_make_ten_errors(server: Server):
    body = json.dumps({f"{number:x}": 1 for number in range(5000)}).encode()
    response = one(server, request("POST", "/login", body, CLOSE))
    assert (response.status, response.code) == (422, "validation_failed")
    assert len(json.loads(response.body)["errors"]) == 10


@pytest.mark.parametrize("framing", ["Transfer-Encoding: chunked", f"Content-Length: {64 << 20}"])
def test_no_body_fills_the_memory(server: Server, framing: str):
    """64 MB to a route that reads JSON, to one that reads nothing, and to one that does not exist."""
    before = memory_peak(server)
    piece = b"x" * 65_536
    sent = b"10000\r\n" + piece + b"\r\n" if "chunked" in framing else piece
    for method, path in (("POST", "/login"), ("POST", "/refresh"), ("GET", "/healthz"), ("POST", "/nowhere")):
        with Connection(server.url) as connection, contextlib.suppress(ConnectionError, TimeoutError):
            connection.socket.settimeout(5)  # a server that stops reading is right too
            connection.send(request(method, path, b"", framing, JSON))
            for _ in range(1024):
                connection.send(sent)
    assert memory_peak(server) < before + 24
    assert httpx.get(f"{server.url}/healthz").status_code == 200


@pytest.mark.parametrize("name", SERVERS)
def test_a_trusted_proxy_says_where_a_request_comes_from(name: str, tmp_path: Path):
    with started(name, tmp_path / "var", trusted_proxies="127.0.0.1") as server:
        server.sign_up()
        forwarded = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-For: 203.0.113.7", CLOSE)
        response = one(server, request("POST", "/login", LOGIN, *forwarded))
        listed = httpx.get(f"{server.url}/sessions", headers=bearer(json.loads(response.body))).json()
    assert listed["items"][0]["ip"] == "203.0.113.7"


@pytest.mark.parametrize("name", COMMANDS)
def test_several_workers_begin_on_one_empty_folder_and_stop(name: str, tmp_path: Path):
    """Each worker prepares the folder, behind one lock. A restart uses the same data."""
    workers = {"granian": "--workers", "hypercorn": "--workers"}[name]
    for number in range(2):
        command = [*COMMANDS[name](0)[:1], workers, "2", *COMMANDS[name](0)[1:]]
        command = [each.replace("127.0.0.1:0", "127.0.0.1:{port}") for each in command]
        if name == "granian":
            command[command.index("--port") + 1] = "{port}"
        with started(name, tmp_path / "var", command) as server:
            if number == 0:
                server.sign_up()
            for _ in range(6):
                assert server.log_in()["access_token"]
            if name == "granian":  # a worker of Granian that is still starting ignores SIGTERM
                eventually(lambda: "Started worker-2" in server.log.read_text(), 60)


def test_create_app_takes_settings(tmp_path: Path):
    """An app module that a team wrote, under a server that imports it."""
    source = f"""
from sessionapi import Settings, create_app
app = create_app(Settings(data_dir={str(tmp_path / "own")!r}, throttle=False, log_format="json"))
"""
    (tmp_path / "mine.py").write_text(source)
    with started(
        "hypercorn", tmp_path / "var", ["hypercorn", "-b", "127.0.0.1:{port}", "mine:app"]
    ) as server:
        server.sign_up()
    assert (tmp_path / "own/sessionapi.db").exists()
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_what_can_not_start_says_why(name: str, tmp_path: Path):
    wrong = pytest.raises(AssertionError, match="SESSIONAPI_ACCESS_TOKEN_TTL=1")
    with wrong, started(name, tmp_path / "var", access_token_ttl=1):
        pytest.fail("it started")


def test_importing_the_package_imports_neither_framework_nor_database():
    """Fails if `create_app` or `Settings` is imported eagerly, because the verifier must stay light."""
    code = """
import sys, sessionapi, sessionapi.verifier
heavy = {"fastapi", "starlette", "sqlalchemy", "pydantic", "uvicorn"}
assert not heavy & {name.partition(".")[0] for name in sys.modules}
from sessionapi import Settings, create_app
assert {"Settings", "create_app"} <= set(dir(sessionapi))
assert Settings.__module__ == "sessionapi.settings"
try:
    sessionapi.nothing
except AttributeError as error:
    assert "nothing" in str(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
