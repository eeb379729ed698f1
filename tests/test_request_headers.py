"""Request headers: the fields that may come once, those that are joined, and the cookies that are parsed."""

import httpx
import pytest

from tests.support.api_client import PASSWORD, bearer, refusal
from tests.support.app import Running, running

pytestmark = pytest.mark.engines("sqlite")  # nothing here depends on the database

BY_COOKIE = {"username": "ada", "password": PASSWORD, "transport": "cookie"}
MALFORMED = (400, "malformed_request", None)


async def sign_up_by_cookie(service: Running) -> tuple[str, str]:
    """Sign up, and return the values of the session cookie and of the device cookie."""
    answer = await service.client.post("/signup", json=BY_COOKIE)
    assert answer.status_code == 201
    service.client.cookies.clear()
    return answer.cookies["__Host-session"], answer.cookies["__Host-device"]


async def refresh_with(service: Running, *cookies: str | bytes) -> httpx.Response:
    return await service.client.post("/refresh", headers=[("Cookie", each) for each in cookies])


@pytest.mark.parametrize(
    "header",
    [
        "Host: localhost:8000",
        "Content-Type: application/json",
        "Content-Length: 0",
        "Origin: http://localhost:8000",
        "Sec-Fetch-Site: same-origin",
        "Idempotency-Key: a",
    ],
)
@pytest.mark.parametrize("path", ["/protected", "/refresh", "/login", "/healthz", "/sign-in", "/nowhere"])
async def test_a_header_that_may_come_once_is_refused_when_it_comes_twice(
    service: Running, path: str, header: str
):
    """Fails without SINGLE in request_headers."""
    name, value = header.split(": ")
    request = service.client.build_request("POST" if path in ("/refresh", "/login") else "GET", path)
    request.headers.pop(name, None)
    twice = httpx.Headers([*request.headers.multi_items(), (name, value), (name, value)])
    request.headers = twice
    answer = await service.client.send(request)
    assert refusal(answer) == MALFORMED
    assert name in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/protected", "/me", "/login", "/revocations", "/healthz"])
async def test_two_authorization_headers_are_malformed_on_every_route(service: Running, path: str):
    tokens = await service.sign_up()
    value = bearer(tokens)["Authorization"]
    method = "POST" if path == "/login" else "GET"
    answer = await service.client.request(method, path, headers=[("Authorization", value)] * 2)
    assert refusal(answer) == (401, "malformed_authorization", None)


@pytest.mark.parametrize(
    "value", ["", "a b", "a/b", "user@localhost", "a,b", "[::1", "a:b", "a\xa0", "a:80:80"]
)
async def test_a_host_that_is_not_a_host_is_refused(service: Running, value: str):
    answer = await service.client.get("/healthz", headers={"Host": value.encode("latin-1")})
    assert refusal(answer) == MALFORMED


@pytest.mark.parametrize(
    "value", ["localhost", "session_api:8000", "[::1]:8000", "[::1]", "xn--bcher-kva.example."]
)
async def test_a_host_that_is_one_is_taken(service: Running, value: str):
    assert (await service.client.get("/healthz", headers={"Host": value})).status_code == 200


async def test_a_body_has_chunks_or_a_length(service: Running):
    for headers in ({"Transfer-Encoding": "gzip, chunked"}, {"Transfer-Encoding": "identity"}):
        answer = await service.client.post("/login", content=b"{}", headers=headers)
        assert refusal(answer) == MALFORMED
    both = {"Transfer-Encoding": "chunked", "Content-Length": "2", "Content-Type": "application/json"}
    assert refusal(await service.client.post("/login", content=b"{}", headers=both)) == MALFORMED


async def test_http_1_1_needs_a_host_and_http_1_0_does_not(service: Running):
    for version, status in (("1.1", 400), ("1.0", 200)):
        assert (await without_host(service, version))["status"] == status


async def without_host(service: Running, version: str) -> dict:
    """Send GET /healthz without a Host header straight to the ASGI app; return the start of the response."""
    sent: list[dict] = []

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": version,
        "method": "GET",
        "scheme": "http",
        "path": "/healthz",
        "raw_path": b"/healthz",
        "query_string": b"",
        "root_path": "",
        "headers": [],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }
    await service.client._transport.app(scope, receive, send)
    return sent[0]


@pytest.mark.parametrize(
    "space", ["\xa0", "\x0b", "\x0c", "\x1f", "\x85", "\u2003".encode().decode("latin-1")]
)
async def test_a_cookie_whose_name_is_almost_ours_is_not_ours(service: Running, space: str):
    """A subdomain may set it: browsers see no `__Host-` prefix there. Fails if white space is stripped."""
    session, _ = await sign_up_by_cookie(service)
    for cookie in (f"{space}__Host-session={session}", f"__Host-session{space}={session}"):
        answer = await refresh_with(service, cookie.encode("latin-1"))
        assert refusal(answer) == (401, "invalid_refresh_token", None)
    answer = await refresh_with(service, f"__Host-session={space}{session}".encode("latin-1"))
    assert refusal(answer) == (401, "invalid_refresh_token", None)


async def test_spaces_and_tabs_around_our_cookie_are_stripped(service: Running):
    session, device = await sign_up_by_cookie(service)
    answer = await refresh_with(service, f"a=b;\t __Host-session \t=  {session}\t ;__Host-device={device}; c")
    assert answer.status_code == 200


async def test_our_cookie_is_found_in_several_cookie_headers(service: Running):
    """HTTP/2 sends each cookie in a separate header (RFC 9113, 8.2.3)."""
    session, device = await sign_up_by_cookie(service)
    answer = await refresh_with(service, "a=b", f"__Host-session={session}", f"__Host-device={device}")
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/refresh", "/login", "/logout", "/sign-in", "/", "/protected"])
async def test_of_two_cookies_with_our_name_none_is_used(service: Running, path: str):
    session, device = await sign_up_by_cookie(service)
    for name, value in (("__Host-session", session), ("__Host-device", device)):
        for other in (value, "", "x", "x" * 9000):
            both = [f"{name}={value}", f"{name}={other}"]
            for lines in (["; ".join(both)], both, [f"a=b; {both[1]}", f"c=d; {both[0]}"]):
                method = "POST" if path in ("/refresh", "/login", "/logout") else "GET"
                answer = await service.client.request(
                    method, path, headers=[("Cookie", line) for line in lines]
                )
                assert refusal(answer) == MALFORMED
                assert name in answer.json()["detail"]
    assert service.rows("select revoked_at from sessions") == [(None,)]


async def test_a_cookie_of_ours_that_is_too_long_is_not_passed_on(service: Running):
    answer = await refresh_with(service, f"__Host-session={'x' * 5000}")
    assert refusal(answer) == (401, "invalid_refresh_token", None)


async def test_other_headers_that_come_twice_are_joined(make_settings, clock):
    """Fails if only the first or the last one is used: two values are not one request id."""
    async with running(make_settings(), clock) as service:
        ids = [("X-Request-ID", "one"), ("X-Request-ID", "two")]
        answer = await service.client.get("/healthz", headers=ids)
        assert answer.headers["x-request-id"] not in ("one", "two")
        agents = [
            ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0)"),
            ("User-Agent", "Firefox/140.0"),
        ]
        request = service.client.build_request(
            "POST", "/signup", json={"username": "ada", "password": PASSWORD}
        )
        del request.headers["User-Agent"]
        request.headers = httpx.Headers([*request.headers.multi_items(), *agents])
        tokens = (await service.client.send(request)).json()
        listed = (await service.get("/sessions", tokens)).json()
        assert listed["items"][0]["device_name"] == "Firefox on Linux"


async def test_more_than_200_headers_or_8_kib_of_query_are_refused(service: Running):
    """Fails without `_too_much`: the framework parses both for every route, 40 ms for 64 KB."""
    for path in ("/healthz", "/protected", "/sign-in", "/sessions"):
        answer = await service.client.get(path, headers={f"X-{number}": "" for number in range(201)})
        assert refusal(answer) == MALFORMED
        answer = await service.client.get(f"{path}?{'a&' * 4097}")
        assert refusal(answer) == MALFORMED
    answer = await service.client.get(
        f"/sign-in?next=/{'a' * 8000}", headers={f"X-{n}": "" for n in range(190)}
    )
    assert answer.status_code == 200


async def test_a_query_that_no_url_contains_is_malformed(service: Running):
    """Fails without the check in `_too_much`: the framework raises an error when it decodes the URL."""
    sent: list[dict] = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": "GET",
        "path": "/nowhere",
        "raw_path": b"/nowhere",
        "query_string": b"\xff",
        "scheme": "http",
        "root_path": "",
        "headers": [(b"host", b"localhost:8000")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 8000),
    }

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    await service.client._transport.app(scope, receive, send)
    assert sent[0]["status"] == 400
    assert b"malformed_request" in sent[1]["body"]
