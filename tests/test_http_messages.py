"""One request is one message: the bytes that a connection may carry (RFC 9112, RFC 9110)."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.api_client import PASSWORD, bearer
from tests.support.raw import Connection, Response, chunked, exchange, request
from tests.support.server import Server, serving

pytestmark = [pytest.mark.server, pytest.mark.measured]
LOGIN = json.dumps({"username": "ada", "password": PASSWORD}).encode()
LAST = request("GET", "/healthz", b"", "Connection: close")
"""Ends the connection, so that every response before it has been sent too."""
HIDDEN = b"GET /.well-known/jwks.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
"""A body that looks like a request, whose response would be a 200 with keys."""
UPGRADES = {
    "h2c": (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
    ),
    "websocket": (
        "Connection: upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
    "two protocols": ("Upgrade: TLS/1.3, IRC/6.9", "Connection: keep-alive, Upgrade"),
    "two fields": ("Connection: keep-alive", "Connection: upgrade", "Upgrade: h2c", "Upgrade: websocket"),
    "an empty one": ("Connection: upgrade", "Upgrade: "),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("messages") / "var", trusted_proxies="127.0.0.1") as it:
        it.sign_up()
        yield it


def statuses(responses: list[Response]) -> list[int]:
    return [response.status for response in responses]


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_an_upgrade_that_is_not_taken_leaves_the_body_a_body(server: Server, upgrade: tuple):
    """Fails without `_ignore_upgrade`: the body was read as a request, and the login had no body."""
    for login in (request("POST", "/login", LOGIN, *upgrade), chunked("POST", "/login", LOGIN, *upgrade)):
        head, end, body = login.partition(b"\r\n\r\n")
        for parts in ([login], [head + end, body], [bytes([byte]) for byte in login]):
            found = exchange(server.url, *parts, request("GET", "/protected"), LAST)
            assert statuses(found) == [200, 401, 200]
            assert found[0].json()["user"]["username"] == "ada"
    found = exchange(server.url, request("GET", "/healthz", b"", *upgrade), request("GET", "/x"), LAST)
    assert statuses(found) == [200, 404, 200]


@pytest.mark.parametrize("upgrade", UPGRADES.values(), ids=UPGRADES)
@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_a_request_in_a_body_is_never_answered(server: Server, upgrade: tuple):
    """Fails without `_ignore_upgrade`: behind a proxy, that response went to the next user."""
    for hidden in (HIDDEN, HIDDEN * 3, b"0\r\n\r\n" + HIDDEN):
        for attack in (request, chunked):
            message = attack("POST", "/login", hidden, *upgrade)
            head, end, body = message.partition(b"\r\n\r\n")
            for parts in ([message], [head + end, body]):
                found = exchange(server.url, *parts, request("GET", "/protected"), LAST)
                assert statuses(found) == [400, 401, 200]


@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_an_upgrade_does_not_outlive_the_end_of_a_connection(server: Server):
    """Fails without the Connection field in `_ignore_upgrade`, or without the check of `_ended`."""
    close = ("Connection: upgrade, close", "Upgrade: h2c")
    for first in (request("POST", "/login", LOGIN, *close), chunked("POST", "/login", LOGIN, *close)):
        assert statuses(exchange(server.url, first + HIDDEN)) == [200]
    assert statuses(exchange(server.url, request("GET", "/healthz", b"", *close) + HIDDEN)) == [200]


@pytest.mark.parametrize("path", ["/login", "/signup"])
@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_curl_with_http2_keeps_its_body(server: Server, path: str):
    """Fails without `_ignore_upgrade`: curl offers h2c with the first request, and sends the body at once."""
    body = {"username": "ada" if path == "/login" else "eve", "password": PASSWORD}
    command = [
        "curl",
        "--http2",
        "-sS",
        "--max-time",
        "60",
        "--json",
        json.dumps(body),
        "-w",
        "\n%{http_code}",
    ]
    done = subprocess.run([*command, f"{server.url}{path}"], capture_output=True, text=True, check=True)
    answer, status = done.stdout.rsplit("\n", 1)
    assert (json.loads(answer)["user"]["username"], status[:2]) == (body["username"], "20")


OK = request("GET", "/protected")
POST = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SIZE = b"Content-Length: %d\r\n" % len(LOGIN)
REFUSED = {
    "CONNECT with a path": b"CONNECT /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    "a query in the authority": b"GET http://a?b/c HTTP/1.1\r\nHost: a?b\r\n\r\n",
    "no Host": b"GET /healthz HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
    "two Hosts in HTTP/1.0": b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n",
    "Host only after the body": CHUNKS.replace(b"Host: localhost\r\n", b"") + b"0\r\nHost: a\r\n\r\n",
    "HTTP/0.9": b"GET /healthz\r\n\r\n",
    "HTTP/0.9 in words": b"GET /healthz HTTP/0.9\r\n\r\n",
    "HTTP/2.0": b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET /healthz HTTP/1.2\r\nHost: localhost\r\n\r\n",
    "no protocol": b"GET /healthz XTTP/1.1\r\nHost: localhost\r\n\r\n",
    "CONNECT": b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n" + HIDDEN,
    "the target *": b"OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a target with a fragment": b"GET /healthz#x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a target on another host": b"GET http://other/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a target with a user": b"GET http://a@localhost/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "bytes in the target": b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "LF alone": b"GET /healthz HTTP/1.1\nHost: localhost\n\n",
    "LF after a field": b"GET /healthz HTTP/1.1\r\nHost: localhost\nX: y\r\n\r\n",
    "CR alone": b"GET /healthz HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n",
    "NUL in a value": b"GET /healthz HTTP/1.1\r\nHost: local\0host\r\n\r\n",
    "a folded line": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: y\r\n z\r\n\r\n",
    "a space before the first field": b"GET /healthz HTTP/1.1\r\n Host: localhost\r\n\r\n",
    "a space before the colon": b"GET /healthz HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a field without a name": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n: y\r\n\r\n",
    "a field without a colon": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX\r\n\r\n",
    "length and chunks": POST + SIZE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\n" + SIZE + b"\r\n0\r\n\r\n" + HIDDEN,
    "two lengths": POST + SIZE + b"Content-Length: 0\r\n\r\n" + LOGIN,
    "the same length twice": POST + SIZE * 2 + b"\r\n" + LOGIN,
    "a list of lengths": POST + b"Content-Length: 5, 5\r\n\r\nhello",
    "a length with a sign": POST + b"Content-Length: +5\r\n\r\nhello",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nhello",
    "a length in hex": POST + b"Content-Length: 0x5\r\n\r\nhello",
    "a length with a space": POST + b"Content-Length: 1 0\r\n\r\nhellohello",
    "a length with a score": POST + b"Content-Length: 1_0\r\n\r\nhellohello",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "a length over 64 bits": POST + b"Content-Length: 18446744073709551621\r\n\r\nhello",
    "identity": POST + b"Transfer-Encoding: identity\r\n\r\n" + LOGIN,
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "gzip and chunked": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "gzip and chunked apart": POST
    + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and gzip": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "a comma before chunked": POST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "chunked after a tab of another kind": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": CHUNKS.replace(b"HTTP/1.1", b"HTTP/1.0") + b"0\r\n\r\n" + HIDDEN,
    "LF after a chunk size": CHUNKS + b"5\nhello\r\n0\r\n\r\n",
    "LF after a chunk": CHUNKS + b"5\r\nhello\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKS + b"5\r\nhellooo\r\n0\r\n\r\n",
    "a chunk size in 0x": CHUNKS + b"0x5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a sign": CHUNKS + b"+5\r\nhello\r\n0\r\n\r\n",
    "a chunk size with a space": CHUNKS + b"5 \r\nhello\r\n0\r\n\r\n",
    "an empty chunk size": CHUNKS + b"\r\nhello\r\n0\r\n\r\n",
    "a chunk size over 64 bits": CHUNKS + b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "LF in a chunk extension": CHUNKS + b"5;a\nb\r\nhello\r\n0\r\n\r\n",
    "CRLF in a quoted extension": CHUNKS + b'5;a="\r\n0\r\n\r\n' + HIDDEN,
    "a length after the chunks": CHUNKS + b"0\r\nContent-Length: 50\r\n\r\n" + HIDDEN,
    "a coding after the chunks": CHUNKS + b"0\r\nTransfer-Encoding: chunked\r\n\r\n" + HIDDEN,
    "LF at the end of the chunks": CHUNKS + b"0\r\n\n" + HIDDEN,
    "a line folded after the chunks": CHUNKS + b"0\r\nX: y\r\n z\r\n\r\n",
    "201 fields": b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * 200 + b"\r\n",
    "64 KiB of fields": b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 65_536 + b"\r\n\r\n",
    "400 KB of empty lines": b"\r\n" * 200_000 + OK,
    "600 KB around 20 bytes": CHUNKS + (b"1;" + b"x" * 30_000 + b"\r\na\r\n") * 20 + b"0\r\n\r\n",
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_what_can_be_read_in_two_ways_is_refused(server: Server, sent: bytes):
    """Fails without the rules of `_check_head`. Some cases show the rules that the parser itself enforces."""
    for upgrade in (b"", b"\r\nConnection: upgrade\r\nUpgrade: h2c"):
        message = sent.replace(b"\r\nHost: localhost", b"\r\nHost: localhost" + upgrade, 1)
        found = exchange(server.url, OK + message + OK)
        assert statuses(found) == [401, 400]
        refused = found[1]
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["connection"] == "close"
        assert refused.headers["cache-control"] == "no-store"
        assert refused.headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in refused.headers["content-security-policy"]
        problem = refused.json()
        assert (problem["status"], problem["code"]) == (400, "malformed_request")
        assert refused.headers["x-request-id"] == problem["request_id"]
        assert problem["type"].endswith("/errors/malformed_request")


@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_no_bytes_of_a_client_are_logged_as_an_error_of_the_service(tmp_path: Path):
    """An error after an ignored upgrade, and a length with many zeros, are not defects of the service."""
    head = b"POST /login HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n"
    bad_chunks = (
        head + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\nG(T / HTTP/1.1\r\n\r\n"
    )
    zeros = b"POST /login HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + b"0" * 5000 + b"2\r\n\r\n{}"
    with serving(tmp_path / "var") as server:
        exchange(server.url, bad_chunks)
        found = exchange(server.url, zeros, LAST)
        assert statuses(found) == [415, 200]
        exchange(server.url, REFUSED["a query in the authority"])
    assert "unexpected error" not in server.log.read_text()
    assert "Traceback" not in server.log.read_text()


TAKEN = {
    "HTTP/1.0 without Host": b"GET /protected HTTP/1.0\r\n\r\n",
    "an absolute target": b"GET http://LOCALHOST/protected HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "empty lines before": b"\r\n\r\n" + OK,
    "200 fields": b"GET /protected HTTP/1.1\r\nHost: a\r\n" + b"a:\r\n" * 199 + b"\r\n",
    "60 KiB of fields": b"GET /protected HTTP/1.1\r\nHost: a\r\n"
    + (b"a: " + b"x" * 600 + b"\r\n") * 100
    + b"\r\n",
    "Upgrade without Connection": b"GET /protected HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
}


@pytest.mark.parametrize("sent", TAKEN.values(), ids=TAKEN)
@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_unusual_requests_are_read_all_the_same(server: Server, sent: bytes):
    with Connection(server.url) as connection:
        assert connection.send(sent).read().status == 401


@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_chunks_of_every_shape_are_one_body(server: Server):
    for size in (1, 2, 15, 1000):
        found = exchange(server.url, chunked("POST", "/login", LOGIN, size=size), OK, LAST)
        assert statuses(found) == [200, 401, 200]
    extended = CHUNKS + b'%X;a=b;c="d\\"e"\r\n%s\r\n000\r\n\r\n' % (len(LOGIN), LOGIN)
    assert statuses(exchange(server.url, extended, OK, LAST)) == [200, 401, 200]


@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_a_handful_of_requests_may_wait_on_a_connection(server: Server):
    """Fails without MAX_QUEUED. The refusal comes after the responses to the requests before it."""
    assert statuses(exchange(server.url, OK * 8 + LAST)) == [401] * 8 + [200]
    *answered, refused = exchange(server.url, OK * 1000)
    assert statuses(answered) == [401] * 9
    assert (refused.status, refused.json()["code"]) == (400, "malformed_request")


@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_a_refused_body_is_answered_once(server: Server):
    """Fails without `_abandon`: the app would respond to the same request too."""
    bad = chunked("POST", "/login", LOGIN)[:-7] + b"z\r\n\r\n"
    assert statuses(exchange(server.url, bad)) == [400]
    assert statuses(exchange(server.url, OK, bad)) == [401, 400]
    assert statuses(exchange(server.url, OK * 3 + bad)) == [401, 401, 401, 400]
    large = POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"11000\r\n" + b"x" * 0x11000 + b"\r\n"
    with Connection(server.url) as connection:
        assert connection.send(large).read().status == 413
        connection.send(b"z\r\n")
        assert connection.is_closed()


@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_a_head_that_is_refused_has_no_body(server: Server):
    with Connection(server.url) as connection:
        connection.send(b"HEAD /healthz HTTP/1.1\r\n\r\n")
        assert connection.read(method="HEAD").status == 400
        assert connection.is_closed()


@pytest.mark.requirement("ASVS 4.2.1, RFC 9112")
def test_a_continue_is_sent_when_the_body_is_wanted(server: Server):
    with Connection(server.url) as connection:
        head, end, body = request("POST", "/login", LOGIN, "Expect: 100-continue").partition(b"\r\n\r\n")
        assert connection.send(head + end).read().status == 100
        assert connection.send(body).read().status == 200


FORGED = (
    "X-Forwarded-For: 203.0.113.66",
    "X-Forwarded-Proto: https",
    "Authorization: Bearer x",
    "Cookie: __Host-session=x",
    "Origin: https://attacker.example",
    "Sec-Fetch-Site: cross-site",
    "Idempotency-Key: x",
    "Content-Type: text/plain",
    "X-Request-ID: forged",
    "User-Agent: forged",
    "Host: attacker.example",
    "Upgrade: h2c",
    "Expect: 100-continue",
)


@pytest.mark.requirement("ASVS 4.1.3, RFC 9110 6.5.1")
def test_fields_after_the_body_change_nothing(server: Server):
    """Fails without the new list in `on_headers_complete`: each was a header, and named the client."""
    for upgrade in ((), UPGRADES["h2c"]):
        message = chunked("POST", "/login", LOGIN, *upgrade, trailers=FORGED)
        head, end, rest = message.partition(b"\r\n\r\n")
        for parts in ([message], [head + end, rest]):
            found, last = exchange(server.url, *parts, LAST)
            assert (found.status, last.status) == (200, 200)
            assert found.headers["x-request-id"] != "forged"
            listed = httpx.get(f"{server.url}/sessions", headers=bearer(found.json())).json()
            assert "203.0.113.66" not in str(listed)
            assert "forged" not in str(listed)


@pytest.mark.requirement("ASVS 4.1.3, RFC 9110 6.5.1")
def test_a_token_after_the_body_opens_nothing(server: Server):
    tokens = server.log_in()
    for name, value in bearer(tokens).items():
        message = chunked("GET", "/protected", b"{}", trailers=(f"{name}: {value}",))
        assert statuses(exchange(server.url, message, LAST)) == [401, 200]


@pytest.mark.parametrize("field", ["Connection: close", "Proxy-Connection: close", "Connection: upgrade"])
@pytest.mark.requirement("ASVS 4.1.3, RFC 9110 6.5.1")
def test_the_next_request_is_answered_or_the_connection_closed(server: Server, field: str):
    """Fails without `should_keep_alive` in `on_message_complete`: the parser dropped the bytes that followed.

    A proxy that used the connection for the next user would have waited without end.
    """
    message = chunked("POST", "/login", LOGIN, trailers=(field, "Upgrade: h2c"))
    with Connection(server.url) as connection:
        assert connection.send(message).read().status == 200
        closed = field.endswith("close") and connection.is_closed()
        assert closed or connection.send(OK).read().status == 401
    with Connection(server.url) as connection:  # the response is complete before the body is
        unread = chunked("GET", "/protected", LOGIN, trailers=(field, "Upgrade: h2c"))
        head, end, rest = unread.partition(b"\r\n\r\n")
        assert connection.send(head + end).read().status == 401
        connection.send(rest)
        closed = field.endswith("close") and connection.is_closed()
        assert closed or connection.send(OK).read().status == 401
