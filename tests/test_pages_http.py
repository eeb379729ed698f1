"""The pages over HTTP: who gets them, where they redirect, and what they never contain."""

import re
from pathlib import Path
from typing import get_args
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from sessionapi import models
from sessionapi.web.end_reasons import REASONS
from sessionapi.web.routes.pages import router, stays_home
from tests.support.api_client import PASSWORD
from tests.support.app import Running, running
from tests.support.pages import GATED

APP, LOGIN = "https://app.example.com", "https://login.example.com"
PUBLIC = ("/sign-in", "/sign-up", "/reset-password")
HOME = [
    "/",
    "/account",
    "/account?tab=devices&x=%2F%2Fevil.example#password",
    "/.//evil.example",
    f"{APP}/",
    f"{APP}/deep?next=//evil.example",
    APP,
    f"{LOGIN}/account",
]
AWAY = [
    "",
    "account",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\/evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/ /evil.example",
    "http:evil.example",
    "https:/evil.example",
    "https://evil.example",
    "https:///evil.example",
    "HTTPS://APP.EXAMPLE.COM@evil.example/",
    f"{APP}.evil.example/",
    f"{APP}@evil.example/",
    f"{APP}:443@evil.example/",
    f"{APP}\\@evil.example/",
    f"{APP}\\.evil.example/",
    f"{APP}%2eevil.example/",
    f"{APP}?@evil.example",
    f"{APP}#@evil.example",
    f"{APP}:8443/",
    "http://app.example.com/",
    "https://аpp.example.com/",
    "https://evil.example／",
    "/／evil.example",
    "/\x00/evil.example",
    "/\u2028/evil.example",
    "javascript:alert(1)",
    "JavaScript://login.example.com/%0aalert(1)",
    "data:text/html,<script>alert(1)</script>",
    "blob:https://login.example.com/x",
    "view-source:https://evil.example",
    '/"><script>',
    "/" + "x" * 2000,
]


@pytest.fixture
async def site(make_settings, clock):
    settings = make_settings(public_url=LOGIN, allowed_origins=(APP,))
    async with running(settings, clock) as service:
        service.client.base_url = LOGIN
        yield service


async def sign_up(service: Running) -> None:
    """Sign up, and from now on send the cookie of an active session."""
    body = {"username": "ada", "password": PASSWORD, "email": "ada@example.com", "transport": "cookie"}
    service.client.cookies.clear()
    cookie = (await service.client.post("/signup", json=body)).cookies["__Host-session"]
    service.client.cookies.clear()
    service.client.cookies["__Host-session"] = cookie


async def landing(service: Running, path: str) -> tuple[str, dict[str, str]]:
    """Return the path and the query to which a page redirects."""
    answer = await service.client.get(path)
    assert answer.status_code == 303
    assert answer.headers["cache-control"] == "no-store"
    to = urlsplit(answer.headers["location"])
    return to.path, {name: values[0] for name, values in parse_qs(to.query).items()}


def test_these_tests_know_every_page():
    brand = {"/.well-known/change-password", "/theme.css", "/mark.svg"}
    assert {route.path for route in router.routes} == {*PUBLIC, *GATED, *brand}


@pytest.mark.parametrize("path", [*GATED, "/account?tab=devices"])
async def test_a_page_that_is_not_public_is_not_sent_without_a_living_session(site: Running, path):
    """Deny by default. Fails if `page` sends a template before it calls _refusal."""
    back = {} if path == "/" else {"next": path}
    assert await landing(site, path) == ("/sign-in", back)
    site.client.cookies["__Host-session"] = "sr_forged"
    assert (await landing(site, path))[0] == "/sign-in"
    await sign_up(site)
    assert (await site.client.get(path)).status_code == 200
    await site.client.post("/logout", headers={"Origin": LOGIN})
    assert await landing(site, path) == ("/sign-in", {**back, "reason": "logout"})


async def test_who_is_signed_in_is_led_on_from_the_entrances(site: Running):
    await sign_up(site)
    assert await landing(site, "/sign-in?next=%2Faccount") == ("/account", {})
    assert await landing(site, "/sign-up") == ("/", {})
    assert (await site.client.get("/reset-password")).status_code == 200


async def test_a_look_at_the_cookie_neither_rotates_nor_moves_a_clock(site: Running):
    """Fails if the pages refresh instead of calling Refreshes.validate."""
    await sign_up(site)
    before = site.rows("select * from sessions")
    site.clock.move(3600)
    for path in GATED:
        assert "set-cookie" not in (await site.client.get(path)).headers
    assert site.rows("select * from sessions") == before
    site.clock.move(7 * 86_400)
    assert await landing(site, "/account") == ("/sign-in", {"next": "/account", "reason": "idle"})


@pytest.mark.parametrize("target", AWAY)
async def test_next_never_leads_to_somebody_else(site: Running, target):
    """Open redirects. Fails without stays_home, or a line of it."""
    assert not stays_home(target, site.container.settings)
    for path in ("/sign-in", "/sign-up"):
        answer = await site.client.get(f"{path}?next={quote(target, safe='')}")
        assert 'data-next="/"' in answer.text
        assert "evil" not in answer.text
    await sign_up(site)
    assert await landing(site, f"/sign-in?next={quote(target, safe='')}") == ("/", {})


@pytest.mark.parametrize("target", HOME)
async def test_next_leads_back_to_a_page_of_ours_or_of_a_listed_origin(site: Running, target):
    assert stays_home(target, site.container.settings)
    page = (await site.client.get(f"/sign-in?next={quote(target, safe='')}")).text
    assert f'data-next="{target.replace("&", "&amp;")}"' in page
    assert f'href="/sign-up?next={quote(target, safe="")}"' in page
    await sign_up(site)
    answer = await site.client.get(f"/sign-in?next={quote(target, safe='')}")
    assert answer.headers["location"] == target


async def test_the_settings_say_where_the_pages_lead(make_settings, clock):
    after = {name: f"https://app.example.com/{name}" for name in ("sign_in", "sign_up", "sign_out")}
    settings = make_settings(**{f"after_{name}_url": url for name, url in after.items()})
    async with running(settings, clock) as service:
        for name in ("sign_in", "sign_up"):
            page = (await service.client.get(f"/{name.replace('_', '-')}")).text
            assert f'data-next="{after[name]}"' in page
            assert f'data-after-sign-out="{after["sign_out"]}"' in page
        assert await landing(service, "/") == ("/sign-in", {"next": "/"})


@pytest.mark.parametrize("path", [*PUBLIC, *GATED])
async def test_a_page_holds_nothing_inline_nothing_of_its_user_and_is_never_stored(site: Running, path):
    """Fails without HEADERS in web/routes/pages.py, or with the user's name in a template."""
    if path in GATED:
        await sign_up(site)
    answer = await site.client.get(path)
    assert answer.headers["cache-control"] == "no-store"
    policy = answer.headers["content-security-policy"]
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(
        policy.split("; ")
    )
    assert "unsafe" not in policy
    assert not re.search(r"""<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|javascript:""", answer.text)
    assert not re.findall(r'(?:src|href)="(?!/[^/]|#)', answer.text)
    assert "ada" not in answer.text.replace('"adaptive"', "")


def test_every_reason_is_told_in_words():
    assert set(get_args(models.EndReason)) <= set(REASONS)


def test_the_example_has_the_same_words_for_every_reason():
    """The example can't import them. Fails if a text is changed in only one of the two lists."""
    script = (Path(__file__).parents[1] / "examples" / "spa" / "app.js").read_text()
    words = dict(re.findall(r'^  (\w+): "(.*)",$', script, re.M))
    assert words == {reason: REASONS[reason] for reason in [*get_args(models.EndReason), "session_revoked"]}


async def test_a_reason_is_told_in_our_words_and_never_in_those_of_an_address(site: Running):
    for reason, words in REASONS.items():
        assert words in (await site.client.get(f"/sign-in?reason={reason}")).text
    page = (await site.client.get("/sign-in?reason=Call+0800-555+and+say+your+password")).text
    assert "0800" not in page
    assert "notice" not in page


async def test_pages_off_serves_the_api_alone(make_settings, clock):
    async with running(make_settings(pages=False), clock) as service:
        await sign_up(service)
        for path in (*PUBLIC, *GATED, "/.well-known/change-password", "/theme.css", "/mark.svg"):
            answer = await service.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path
        for path in ("/docs", "/session-client.js", "/healthz"):
            assert (await service.client.get(path)).status_code == 200, path


async def test_a_closed_sign_up_says_so_instead_of_asking(make_settings, clock):
    async with running(make_settings(signup="closed"), clock) as service:
        assert "Sign-up is closed" in (await service.client.get("/sign-up")).text
        assert "<form" not in (await service.client.get("/sign-up")).text
        assert "/sign-up" not in (await service.client.get("/sign-in")).text.replace("sign-up.js", "")


async def test_password_managers_find_where_a_password_is_changed(site: Running):
    answer = await site.client.get("/.well-known/change-password")
    assert (answer.status_code, answer.headers["location"]) == (303, "/account#password")


async def test_the_brand_is_a_name_and_a_colour(make_settings, clock):
    async with running(make_settings(brand_name="<Ada & Co>", brand_color="#c0ffee"), clock) as service:
        page = (await service.client.get("/sign-in")).text
        assert "Sign in to &lt;Ada &amp; Co&gt;" in page
        assert "--accent: #c0ffee;" in (await service.client.get("/theme.css")).text
        mark = await service.client.get("/mark.svg")
        assert mark.headers["content-type"].startswith("image/svg+xml")
        assert ">A</text>" in mark.text


async def test_static_files_are_asked_for_each_time_and_answered_304(site: Running):
    first = await site.client.get("/static/pages/pages.css")
    assert first.headers["cache-control"] == "no-cache"
    again = {"If-None-Match": first.headers["etag"]}
    assert (await site.client.get("/static/pages/pages.css", headers=again)).status_code == 304
