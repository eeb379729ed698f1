"""Cross-origin requests of browsers: the Origin and Fetch-Metadata rule, and CORS (design 5)."""

import httpx
import pytest

from tests.support.api_client import PASSWORD, bearer, refusal
from tests.support.app import Running, running

pytestmark = pytest.mark.engines("sqlite")  # nothing here depends on the database

APP, OWN, EVIL = "https://app.example.com", "http://localhost:8000", "https://evil.example"
REJECTED = (403, "csrf_rejected", None)
BODY = {"username": "ada", "password": PASSWORD, "transport": "cookie"}

PASSES = [
    {},
    {"Origin": OWN},
    {"Origin": APP},
    {"Origin": APP, "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-origin"},
]
REFUSED = [
    {"Origin": EVIL},
    {"Origin": "null"},
    {"Origin": "http://localhost:8000.evil.example"},
    {"Origin": "https://localhost:8000"},
    {"Origin": "http://127.0.0.1:8000"},
    {"Origin": f"{APP}:443"},
    {"Origin": f"{APP}."},
    {"Origin": f"{APP}/"},
    {"Origin": APP.upper()},
    {"Origin": f" {APP} {EVIL}"},
    {"Origin": ""},
    {"Origin": EVIL, "X-Forwarded-Host": "evil.example", "Host": "evil.example"},
    {"Origin": EVIL, "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
]


@pytest.fixture
async def listed(make_settings, clock):
    async with running(make_settings(allowed_origins=(APP,)), clock) as service:
        yield service


async def cookie_of(service: Running) -> dict[str, str]:
    cookie = (await service.client.post("/signup", json=BODY)).cookies["__Host-session"]
    service.client.cookies.clear()
    return {"Cookie": f"__Host-session={cookie}"}


@pytest.mark.parametrize("path", ["/refresh", "/logout", "/login"])
@pytest.mark.parametrize("headers", REFUSED)
@pytest.mark.requirement("OWASP CSRF")
async def test_a_post_that_carries_the_cookie_from_elsewhere_is_rejected(listed: Running, path, headers):
    """Fails without middleware.is_cross_origin."""
    cookie = await cookie_of(listed)
    body = {"json": BODY} if path == "/login" else {}
    answer = await listed.client.post(path, headers={**cookie, **headers}, **body)
    assert refusal(answer) == REJECTED
    assert "set-cookie" not in answer.headers
    assert listed.rows("select revoked_at from sessions") == [(None,)]


@pytest.mark.parametrize("path", ["/refresh", "/logout"])
@pytest.mark.parametrize("headers", PASSES)
async def test_a_post_with_the_cookie_passes_from_our_own_pages_and_listed_ones(
    listed: Running, path, headers
):
    answer = await listed.client.post(path, headers={**await cookie_of(listed), **headers})
    assert answer.status_code in (200, 204)


@pytest.mark.parametrize("path", ["/signup", "/login"])
@pytest.mark.parametrize("headers", REFUSED)
async def test_a_post_that_would_set_the_cookie_from_elsewhere_is_rejected(listed: Running, path, headers):
    """Login CSRF. Fails without the check in web/routes/login._device."""
    if path == "/login":
        await listed.sign_up()
    answer = await listed.client.post(path, json=BODY, headers=headers)
    assert refusal(answer) == REJECTED
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/refresh"), ("PATCH", "/me"), ("DELETE", "/sessions"), ("POST", "/nowhere")],
)
async def test_the_rule_holds_for_every_unsafe_method_with_or_without_a_cookie(listed: Running, method, path):
    """Fails without SAFE_METHODS in ErrorBoundary, for example if the rule depends on POST or on a cookie."""
    tokens = await listed.sign_up()
    bearer = {"Authorization": f"Bearer {tokens['access_token']}"}
    for evil in ({"Origin": EVIL, "Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await listed.client.request(method, path, headers={**bearer, **evil})
        assert refusal(answer) == REJECTED
    read = await listed.client.get("/me", headers={**bearer, "Origin": EVIL, "Sec-Fetch-Site": "cross-site"})
    assert read.status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:4711", "localhost:4711", "[::1]:4711", "localhost"])
async def test_any_port_of_a_loopback_name_is_our_own_origin_where_the_public_url_is_one(
    service: Running, host
):
    """`make run` on another port."""
    cookie = await cookie_of(service)
    headers = {**cookie, "Host": host, "Origin": f"http://{host}"}
    assert (await service.client.post("/refresh", headers=headers)).status_code == 200


NOT_OURS = [
    ("localhost:4711", "http://localhost:4712"),
    ("localhost:4711", "http://127.0.0.1:4711"),
    ("localhost:4711", "https://localhost:4711"),
    ("localhost:4711", "http://localhost:4711/"),
    ("localhost:4711", "http://localhost.:4711"),
    ("localhost.:4711", "http://localhost.:4711"),
    ("LOCALHOST:4711", "http://LOCALHOST:4711"),
    ("127.0.0.1.evil.example:4711", "http://127.0.0.1.evil.example:4711"),
    ("evil.example:4711", "http://evil.example:4711"),
    ("192.168.1.5:4711", "http://192.168.1.5:4711"),
    ("127.0.0.2:4711", "http://127.0.0.2:4711"),
    ("127.1:4711", "http://127.1:4711"),
    ("localhost:", "http://localhost:"),
]


@pytest.mark.parametrize(("host", "origin"), NOT_OURS)
async def test_the_host_that_a_request_names_makes_no_origin_ours(service: Running, host, origin):
    """DNS rebinding: a page of evil.example whose name now leads to the loopback address."""
    cookie = await cookie_of(service)
    answer = await service.client.post("/refresh", headers={**cookie, "Host": host, "Origin": origin})
    assert refusal(answer) == REJECTED
    answer = await service.client.post("/login", json=BODY, headers={"Host": host, "Origin": origin})
    assert refusal(answer) == REJECTED


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:4711", "other.example.com"])
async def test_behind_a_public_name_the_request_makes_no_origin_ours(make_settings, clock, host):
    """Proxies send the name of the upstream as Host. Pages there belong to other programs."""
    async with running(make_settings(public_url="https://login.example.com"), clock) as service:
        cookie = await cookie_of(service)
        for scheme in ("http", "https"):
            lies = {
                "Host": host,
                "X-Forwarded-Host": host,
                "X-Forwarded-Proto": scheme,
                "Forwarded": f"host={host};proto={scheme}",
                "Origin": f"{scheme}://{host}",
            }
            assert refusal(await service.client.post("/refresh", headers={**cookie, **lies})) == REJECTED
        mine = {**cookie, "Host": host, "Origin": "https://login.example.com"}
        assert (await service.client.post("/refresh", headers=mine)).status_code == 200


async def test_two_origins_in_one_request_are_refused(service: Running):
    headers = [*(await cookie_of(service)).items(), ("Origin", OWN), ("Origin", EVIL)]
    assert (await service.client.post("/refresh", headers=headers)).status_code == 400


async def test_a_form_post_is_refused_before_its_content_matters(service: Running):
    headers = {**await cookie_of(service), "Content-Type": "application/x-www-form-urlencoded"}
    answer = await service.client.post("/login", content="username=ada&password=x", headers=headers)
    assert refusal(answer) == (415, "unsupported_media_type", None)


@pytest.mark.parametrize("origin", [APP, EVIL, "null"])
@pytest.mark.requirement("CORS")
async def test_cors_is_off_by_default(service: Running, origin):
    answer = await service.client.get("/protected", headers={"Origin": origin})
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.requirement("CORS")
async def test_a_listed_origin_reads_every_answer_also_errors(listed: Running):
    tokens = await listed.sign_up()
    asked = [
        ("GET", "/protected", 200, bearer(tokens), None),
        ("GET", "/protected", 401, {}, None),
        ("GET", "/nowhere", 404, {}, None),
        ("DELETE", "/protected", 405, {}, None),
        ("POST", "/login", 413, {"Content-Type": "application/json"}, b"x" * 100_000),
        ("POST", "/login", 422, {"Content-Type": "application/json"}, b"{}"),
    ]
    for method, path, status, headers, content in asked:
        answer = await listed.client.request(
            method, path, headers={**headers, "Origin": APP}, content=content
        )
        assert answer.status_code == status
        assert answer.headers["access-control-allow-origin"] == APP
        assert answer.headers["access-control-allow-credentials"] == "true"
        exposed = answer.headers["access-control-expose-headers"]
        assert {"Retry-After", "X-Request-ID", "WWW-Authenticate"} <= set(exposed.split(", "))
        assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("origin", [EVIL, "null"])
@pytest.mark.requirement("CORS")
async def test_an_origin_that_is_not_listed_reads_nothing(listed: Running, origin):
    answer = await listed.client.get("/protected", headers={"Origin": origin})
    assert "access-control-allow-origin" not in answer.headers
    ask = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in (await listed.client.options("/login", headers=ask)).headers


@pytest.mark.parametrize("origin", [APP, EVIL])
@pytest.mark.parametrize("path", ["/session-client.js", "/session-client.d.ts"])
async def test_what_is_open_to_all_is_never_so_with_credentials(listed: Running, path, origin):
    """Fails without `ByPath.__call__`: the framework adds credentials to every response to an Origin."""
    answer = await listed.client.get(path, headers={"Origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-credentials" not in answer.headers


async def test_a_listed_origin_may_ask_before_it_sends(listed: Running):
    ask = {
        "Origin": APP,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
    }
    answer = await listed.client.options("/refresh", headers=ask)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert "POST" in answer.headers["access-control-allow-methods"]


async def test_the_cookie_has_the_name_of_the_setting(make_settings, clock):
    async with running(make_settings(cookie_name="staging"), clock) as service:
        answer = await service.client.post("/signup", json=BODY)
        assert answer.headers["set-cookie"].startswith("__Host-staging=")
        other = {"Cookie": f"__Host-session={answer.cookies['__Host-staging']}"}
        service.client.cookies.clear()
        assert refusal(await service.client.post("/refresh", headers=other))[1] == "invalid_refresh_token"


async def test_cookies_are_read_as_they_are(service: Running):
    """Fails with `request.cookies`, which unquotes: the second case took half a minute (Python 3.11.7)."""
    cookie = (await cookie_of(service))["Cookie"]
    name, _, token = cookie.partition("=")
    for quoted in (f'{name}="{token}"', f'other="{chr(92) * 60_000}"; {name}="{token}"'):
        answer = await service.client.post("/refresh", headers={"Cookie": quoted})
        assert refusal(answer)[1] == "invalid_refresh_token"
    among_others = {"Cookie": f"a=b; c; =d;{cookie} ;e=f"}
    assert (await service.client.post("/refresh", headers=among_others)).status_code == 200


async def test_without_secure_the_cookie_has_neither_prefix_nor_flag(make_settings, clock):
    async with running(make_settings(cookie_secure=False), clock) as service:
        cookie = (await service.client.post("/signup", json=BODY)).headers["set-cookie"]
        assert cookie.startswith("sessionapi-session=sr_")
        assert "Secure" not in cookie
        assert "HttpOnly" in cookie


PLAIN, SECURE = ("sessionapi-session", "sessionapi-device"), ("__Host-session", "__Host-device")


@pytest.mark.parametrize(
    ("secure", "public_url", "names"),
    [
        ("auto", "http://localhost:8000", PLAIN),
        ("auto", "http://127.0.0.1", PLAIN),
        ("Auto", "http://[::1]:8000", PLAIN),
        ("auto", "HTTP://LOCALHOST:8000", PLAIN),
        ("auto", "https://localhost", SECURE),
        ("auto", "https://login.example.com", SECURE),
        ("auto", "http://192.168.1.5:8000", SECURE),
        ("auto", "http://localhost.evil.example", SECURE),
        ("on", "http://localhost:8000", SECURE),
        ("true", "http://localhost:8000", SECURE),
        ("1", "http://localhost:8000", SECURE),
        ("off", "http://localhost:8000", PLAIN),
        ("False", "http://localhost:8000", PLAIN),
        ("0", "http://localhost:8000", PLAIN),
    ],
)
async def test_cookies_are_secure_unless_the_public_url_is_plain_http_on_a_loopback_name(
    make_settings, clock, secure, public_url, names
):
    """WebKit drops Secure cookies on http://localhost. The request itself decides nothing."""
    settings = make_settings(cookie_secure=secure, public_url=public_url)
    async with running(settings, clock) as service:
        for headers in ({}, {"X-Forwarded-Proto": "https"}, {"Host": "login.example.com"}):
            service.client.cookies.clear()
            body = {**BODY, "username": f"ada{len(headers)}{len(str(headers))}"}
            answer = await service.client.post("/signup", json=body, headers=headers)
            lines = answer.headers.get_list("set-cookie")
            assert tuple(line.partition("=")[0] for line in lines) == names
            for line in lines:
                attributes = {each.strip().lower() for each in line.split(";")[1:]}
                assert ("secure" in attributes) is (names == SECURE)
                assert {"httponly", "samesite=lax", "path=/"} <= attributes


async def test_the_plain_cookies_work_for_every_step_of_a_session(make_settings, clock):
    async with running(make_settings(cookie_secure="auto"), clock) as service:
        own = {"Origin": OWN}
        assert (await service.client.post("/signup", json=BODY, headers=own)).status_code == 201
        assert (await service.client.post("/refresh", headers=own)).status_code == 200
        assert (await service.client.get("/account")).status_code == 200
        stolen = {"Cookie": f"__Host-session={service.client.cookies['sessionapi-session']}"}
        async with httpx.AsyncClient(
            transport=service.client._transport, base_url=OWN, headers=stolen
        ) as other:
            assert refusal(await other.post("/refresh"))[1] == "invalid_refresh_token"
        assert refusal(await service.client.post("/refresh", headers={"Origin": EVIL})) == REJECTED
        assert (await service.client.post("/logout", headers=own)).status_code == 204
        assert set(service.client.cookies) == {"sessionapi-device"}


async def test_two_services_on_localhost_can_have_cookies_of_their_own(make_settings, clock):
    """The ports of a host share their cookies."""
    async with running(make_settings(cookie_secure="auto", cookie_name="shop"), clock) as service:
        await service.client.post("/signup", json=BODY)
        assert set(service.client.cookies) == {"sessionapi-shop", "sessionapi-shop-device"}
