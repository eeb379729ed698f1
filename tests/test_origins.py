"""PUBLIC_URL, ISSUER and ALLOWED_ORIGINS: one form for each URL, and the values refused at the start."""

import jwt
import pytest

from sessionapi.errors import StartupError
from sessionapi.settings import load
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running, running

pytestmark = pytest.mark.engines("sqlite")  # nothing here depends on the database

APP = "https://app.example.com"
BODY = {"username": "ada", "password": PASSWORD, "transport": "cookie"}
WRITTEN = {
    "HTTPS://Login.Example.COM:443/": "https://login.example.com",
    "https://login.example.com.": "https://login.example.com",
    "  https://login.example.com\n": "https://login.example.com",
    "https://login.example.com:8443/": "https://login.example.com:8443",
    "https://login.example.com:": "https://login.example.com",
    "https://bücher.example": "https://xn--bcher-kva.example",
    "https://BÜCHER.example.:0443": "https://xn--bcher-kva.example",
    "https://日本語。example": "https://xn--wgv71a119e.example",
    "http://127.0.0.1:80": "http://127.0.0.1",
    "http://[0:0::1]:8000": "http://[::1]:8000",
    "https://my_service:8443": "https://my_service:8443",
}
NOT_WEB_ADDRESSES = [
    "login.example.com",
    "https://",
    "https:///login",
    "ftp://login.example.com",
    "https://login example.com",
    "https://login.example.com\\@evil.example",
    "https://login\t.example.com",
    "https://login.\u200bexample.com",
    "https://ada:hidden9@login.example.com",
    "https://login.example.com?x=1",
    "https://login.example.com/?",
    "https://login.example.com#top",
    "https://login.example.com:0",
    "https://login.example.com:65536",
    "https://login.example.com:port",
    "https://login..example.com",
    "https://-login.example.com",
    "https://login%2eexample.com",
    "https://*.example.com",
    "https://evil.example／",
    "https://[::1",
    "https://[fe80::1%25eth0]",
    "http://127.1",
    "http://0x7f000001",
    "http://2130706433",
    "http://256.0.0.1",
]
OF_APPS = [
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    "tauri://localhost:1420",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "moz-extension://0b2a9a3e-6d4b-4b0e-9a3e-0b2a9a3e6d4b",
    "safari-web-extension://E1F2A3B4-0000-4000-8000-00000000ABCD",
    "app://obsidian.md",
]
NOT_ORIGINS = [
    *NOT_WEB_ADDRESSES,
    "null",
    "*",
    "https://app.example.com/path",
    "capacitor://",
    "capacitor://localhost/index.html",
    "chrome-extension://*",
    "javascript://app.example.com",
    "data:text/html,x",
    "blob:https://app.example.com",
    "file:///",
    "file://host",
    "wss://app.example.com",
]


@pytest.mark.parametrize(("written", "read"), WRITTEN.items())
async def test_a_page_of_the_public_url_may_sign_in_however_the_setting_is_written(
    make_settings, clock, written, read
):
    async with running(make_settings(public_url=written), clock) as service:
        for origin, status in ((read, 201), (f"{read}.", 403), (read.upper(), 403)):
            answer = await service.client.post("/signup", json=BODY, headers={"Origin": origin})
            assert answer.status_code == status, origin
        metadata = (await service.client.get("/.well-known/oauth-authorization-server")).json()
        assert metadata["jwks_uri"] == f"{read}/.well-known/jwks.json"


@pytest.mark.parametrize(("written", "read"), WRITTEN.items())
async def test_a_page_of_a_listed_origin_may_sign_in_however_the_setting_is_written(
    make_settings, clock, written, read
):
    async with running(make_settings(allowed_origins=f"{APP}, {written}"), clock) as service:
        answer = await service.client.post("/signup", json=BODY, headers={"Origin": read})
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == read


@pytest.mark.parametrize("origin", OF_APPS)
async def test_an_app_or_an_extension_can_be_listed(make_settings, clock, origin):
    async with running(make_settings(allowed_origins=origin), clock) as service:
        ask = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        assert (await service.client.options("/login", headers=ask)).status_code == 200
        answer = await service.client.post("/signup", json=BODY, headers={"Origin": origin})
        assert answer.status_code == 201
        assert answer.headers["access-control-allow-origin"] == origin


async def test_a_sign_in_leads_to_no_app_that_is_listed(make_settings, clock):
    """A page that a link opened must not start an app. Fails without the schemes in `stays_home`."""
    async with running(make_settings(allowed_origins=("capacitor://localhost", APP)), clock) as service:
        for target, leads in (("capacitor://localhost/x", "/"), (f"{APP}/x", f"{APP}/x")):
            page = (await service.client.get("/sign-in", params={"next": target})).text
            assert f'data-next="{leads}"' in page


@pytest.mark.parametrize(
    ("name", "written"),
    [("public_url", each) for each in NOT_WEB_ADDRESSES]
    + [("allowed_origins", each) for each in NOT_ORIGINS],
)
def test_what_is_no_address_is_refused_at_the_start(name, written):
    with pytest.raises(StartupError, match=f"^SESSIONAPI_{name.upper()}.*must ") as refused:
        load({name: written})
    assert "hidden9" not in str(refused.value)


@pytest.mark.parametrize("written", [" https://x.example", "https://x.example ", "https://x .example"])
def test_an_issuer_with_white_space_is_refused(written):
    """The tokens would have the issuer unchanged, and no verifier would expect it."""
    with pytest.raises(StartupError, match=r"(?s)^SESSIONAPI_ISSUER=.*without a user or spaces"):
        load({"issuer": written})


@pytest.mark.parametrize(
    ("written", "issuer"),
    [
        ({"public_url": "HTTPS://Login.Example.com:443/"}, "HTTPS://Login.Example.com:443"),
        ({"public_url": "https://login.example.com/"}, "https://login.example.com"),
        ({"public_url": "https://bücher.example"}, "https://bücher.example"),
        ({"public_url": "https://login.example.com/auth/"}, "https://login.example.com/auth"),
        ({"issuer": "https://Login.Example.com:443/"}, "https://Login.Example.com:443/"),
        ({}, "http://localhost:8000"),
    ],
)
async def test_the_issuer_of_the_tokens_stays_as_it_is_written(make_settings, clock, written, issuer):
    """Verifiers compare it character by character. Fails with the normal form in `effective_issuer`."""
    async with running(make_settings(**written), clock) as service:
        tokens = await service.sign_up()
        claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
        metadata = (await service.client.get("/.well-known/oauth-authorization-server")).json()
        assert (claims["iss"], metadata["issuer"]) == (issuer, issuer)
        assert (await service.get("/protected", tokens)).status_code == 200


async def test_a_path_in_the_public_url_changes_nothing_for_its_origin(make_settings, clock):
    """An Origin has no path. Fails if it is compared with the whole URL."""
    async with running(make_settings(public_url="https://example.com/auth"), clock) as service:
        signed_up = await service.client.post("/signup", json=BODY, headers={"Origin": "https://example.com"})
        assert signed_up.status_code == 201
        cookie = {"Cookie": f"__Host-session={signed_up.cookies['__Host-session']}"}
        for path, status in (("/refresh", 200), ("/logout", 204)):
            headers = {**cookie, "Origin": "https://example.com"}
            assert (await service.client.post(path, headers=headers)).status_code == status
        answer = await service.client.post(
            "/signup", json=BODY, headers={"Origin": "https://example.com/auth"}
        )
        assert refusal(answer)[:2] == (403, "csrf_rejected")


@pytest.fixture
async def listed(make_settings, clock):
    async with running(make_settings(allowed_origins=(APP,)), clock) as service:
        yield service


@pytest.mark.parametrize(
    "names",
    [
        "traceparent",
        "traceparent,tracestate",
        "baggage,sentry-trace",
        "x-requested-with",
        "authorization,content-type,idempotency-key,x-request-id",
        "x-datadog-trace-id, x-b3-traceid",
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PATCH", "DELETE"])
async def test_a_preflight_passes_with_the_headers_that_libraries_add(listed: Running, names, method):
    ask = {
        "Origin": APP,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": names,
    }
    answer = await listed.client.options("/sessions", headers=ask)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == APP
    assert answer.headers["access-control-allow-credentials"] == "true"
    allowed = {each.strip().lower() for each in answer.headers["access-control-allow-headers"].split(",")}
    assert {each.strip() for each in names.split(",")} <= allowed
    assert method in answer.headers["access-control-allow-methods"]
    assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("method", ["PUT", "TRACE", "CONNECT"])
async def test_a_preflight_fails_with_a_method_that_no_route_has(listed: Running, method):
    ask = {"Origin": APP, "Access-Control-Request-Method": method}
    answer = await listed.client.options("/sessions", headers=ask)
    assert answer.status_code == 400
    assert method not in answer.headers["access-control-allow-methods"]


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}, {"Origin": APP}])
async def test_every_response_varies_by_origin_where_origins_are_listed(listed: Running, headers):
    """A cache must not serve the response for one page to another."""
    for path in ("/protected", "/readyz", "/nowhere", "/theme.css"):
        answer = await listed.client.get(path, headers=headers)
        assert "origin" in answer.headers["vary"].lower()


@pytest.mark.parametrize("origins", [(), (APP,)])
@pytest.mark.parametrize("path", ["jwks.json", "oauth-authorization-server", "openid-configuration"])
async def test_keys_and_metadata_are_open_to_every_origin(make_settings, clock, path, origins):
    """The header is there even without an Origin, because a shared cache may serve the response to a page."""
    async with running(make_settings(allowed_origins=origins), clock) as service:
        for headers in ({}, {"Origin": APP}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
            answer = await service.client.get(f"/.well-known/{path}", headers=headers)
            assert answer.status_code == 200
            assert answer.headers.get_list("access-control-allow-origin") == ["*"]
            assert "access-control-allow-credentials" not in answer.headers
            assert answer.headers["cache-control"] == "public, max-age=300"
        ask = {
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "traceparent",
        }
        answer = await service.client.options(f"/.well-known/{path}", headers=ask)
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-headers"] == "traceparent"
        assert "access-control-allow-credentials" not in answer.headers
        refused = await service.client.post(f"/.well-known/{path}", headers={"Origin": APP})
        assert refusal(refused)[:2] == ((405, "method_not_allowed") if origins else (403, "csrf_rejected"))
        assert refused.headers["access-control-allow-origin"] == "*"


async def test_libraries_for_openid_connect_find_the_same_metadata(service: Running):
    paths = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")
    first, second = [(await service.client.get(path)).json() for path in paths]
    assert first == second
    assert first["jwks_uri"] == "http://localhost:8000/.well-known/jwks.json"
