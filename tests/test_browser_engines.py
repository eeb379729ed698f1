"""The same paths in three browser engines, with the client on a page of another origin and with the pages."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from inspect import signature
from itertools import count
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from tests.support.api_client import PASSWORD, bearer
from tests.support.engines import ENGINES, Engine, Profile, Tab
from tests.support.pages import age
from tests.support.server import Server, serving
from tests.support.tabs import app_at
from tests.support.waiting import eventually
from tests.support.wire import Loss, Wire, wire

pytestmark = [pytest.mark.server, pytest.mark.timeout(120)]
DOCUMENTATION = Path(__file__).parents[1] / "docs/client.md"
NUMBERS = count(1)
ALL = {engine.id for engine in ENGINES}
FEATURES = {
    "Web Locks": ("Boolean(navigator.locks)", ALL),
    "BroadcastChannel": ("Boolean(globalThis.BroadcastChannel)", ALL),
    "`Secure` cookies on `http://localhost`": ("document.cookie.includes('probe')", ALL - {"WebKitGTK"}),
}
"""Features that an engine may lack: how a page finds out, and the engines that have them."""


@dataclass
class Site:
    """The service, the app on another origin, and the proxy through which the browser reaches the service."""

    app: str
    server: Server
    wire: Wire


class Client:
    """The client on a page of another origin."""

    signed_in = "window.client?.user?.username === '{}'"
    signed_out = "window.client?.user === null"
    reason = "states.at(-1).reason"

    def url(self, site: Site) -> str:
        return f"{site.app}/?{urlencode({'api': site.wire.url, 'warn': 0})}"

    def sign_up(self, tab: Tab, name: str) -> None:
        tab.until("window.client")
        tab.evaluate(f"client.signUp({json.dumps({'username': name, 'password': PASSWORD})})")

    def sign_out(self, tab: Tab) -> None:
        tab.evaluate("client.signOut()")

    def send_a_request(self, tab: Tab) -> None:
        tab.evaluate("client.fetch('/protected').then((response) => response.status)")


class Pages:
    """The pages of the service."""

    signed_in = "document.querySelector('h1')?.textContent === 'Hello, {}'"
    signed_out = "location.pathname === '/sign-in'"
    reason = "new URLSearchParams(location.search).get('reason')"

    def url(self, site: Site) -> str:
        return f"{site.wire.url}/"

    def sign_up(self, tab: Tab, name: str) -> None:
        tab.until("location.pathname === '/sign-in'")
        tab.click("a[href^='/sign-up']")
        tab.until("document.querySelector('#form [type=submit]')?.textContent === 'Create account'")
        tab.until("!document.querySelector('#form [type=submit]').disabled")
        tab.type("[name=username]", name)
        tab.type("[name=password]", PASSWORD)
        tab.click("[type=submit]")

    def sign_out(self, tab: Tab) -> None:
        tab.click(".user-button")
        tab.until("document.querySelector('#user-menu').matches(':popover-open')")
        tab.click("#sign-out")

    def send_a_request(self, tab: Tab) -> None:
        tab.click("#again")


@dataclass
class User:
    """A new user, who opens the client's page or the pages of the service in a new profile."""

    name: str
    surface: Client | Pages
    site: Site
    profile: Profile

    def tab(self) -> Tab:
        return self.profile.tab(self.surface.url(self.site))

    def sign_up(self) -> Tab:
        tab = self.tab()
        self.surface.sign_up(tab, self.name)
        tab.until(self.signed_in)
        self.site.wire.refreshes.clear()
        return tab

    @property
    def signed_in(self) -> str:
        return self.surface.signed_in.format(self.name)


@pytest.fixture(scope="module")
def app() -> Iterator[str]:
    with app_at() as it:
        yield it


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, app: str) -> Iterator[Server]:
    """A server with the shortest lifetime of tokens."""
    settings = {"allowed_origins": app, "cookie_secure": "auto", "access_token_ttl": 10}
    with serving(tmp_path_factory.mktemp("server") / "var", **settings) as it:
        yield it


@pytest.fixture(scope="module", params=ENGINES)
def browser_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    with request.param(tmp_path_factory.mktemp("engine")) as it:
        yield it


@pytest.fixture
def site(app: str, server: Server) -> Iterator[Site]:
    with wire() as proxy:
        proxy.upstream = server.url
        yield Site(app, server, proxy)


@pytest.fixture
def profile(browser_engine: Engine) -> Iterator[Profile]:
    with browser_engine.profile() as it:
        yield it


@pytest.fixture(params=[Client(), Pages()], ids=["client", "pages"])
def user(request: pytest.FixtureRequest, site: Site, profile: Profile) -> User:
    return User(f"ada{next(NUMBERS)}", request.param, site, profile)


def test_a_user_signs_up(user: User):
    tab = user.sign_up()
    readable = tab.evaluate("JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie])")
    assert [secret for secret in ("sr_", "eyJ", "session=") if secret in readable] == []


def test_a_second_tab_is_signed_in(user: User):
    user.sign_up()
    user.tab().until(user.signed_in)


def test_pages_that_are_reloaded_after_the_lifetime_of_a_token_stay_signed_in(site: Site, profile: Profile):
    """The user signs up on the pages, and the client on the other origin has the same session."""
    user = User(f"ada{next(NUMBERS)}", Pages(), site, profile)
    tabs = {user.surface: user.sign_up()}
    client = Client()
    tabs[client] = profile.tab(client.url(site))
    tabs[client].until(client.signed_in.format(user.name))
    headers = bearer(tabs[client].evaluate("client.getToken()"))
    with httpx.Client(base_url=site.server.url) as http:
        eventually(lambda: http.get("/protected", headers=headers).status_code == 401)
    for surface, tab in tabs.items():
        tab.reload()
        tab.until(surface.signed_in.format(user.name))
    assert site.wire.statuses() == {200}


def test_a_lost_response_of_a_refresh_signs_no_user_out(user: User):
    """The lost response is that of a rotation, so the browser has the old cookie."""
    tab = user.sign_up()
    age(user.site.server, user.name, rotated_at=3600, last_seen_at=3600)
    losses: list[Loss] = ["answer"]
    user.site.wire.lose = lambda: losses.pop() if losses else None
    tab.reload()
    tab.until(user.signed_in)
    lost, again = user.site.wire.refreshes[:2]
    assert (lost.lost, lost.generation) == ("answer", 1)
    assert (again.lost, again.generation, again.key) == (None, 1, lost.key)


def test_signing_out_in_one_tab_signs_out_all_tabs(user: User):
    tabs = [user.sign_up(), user.tab()]
    tabs[1].until(user.signed_in)
    user.surface.sign_out(tabs[1])
    for tab in tabs:
        tab.until(user.surface.signed_out)
        assert tab.evaluate(user.surface.reason) == "logout"
    user.tab().until(user.surface.signed_out)


def test_a_device_whose_session_was_ended_elsewhere_learns_the_reason(user: User):
    tab = user.sign_up()
    elsewhere = user.site.server.log_in(user.name)
    others = f"{user.site.server.url}/sessions?keep_current=true"
    assert httpx.delete(others, headers=bearer(elsewhere)).status_code == 200
    user.surface.send_a_request(tab)
    tab.until(user.surface.signed_out)
    assert tab.evaluate(user.surface.reason) == "revoked_by_user"


def test_the_engine_has_the_features_that_the_documentation_names(
    request: pytest.FixtureRequest, site: Site, browser_engine: Engine
):
    with browser_engine.profile() as profile:
        tab = profile.tab(site.wire.url.replace("127.0.0.1", "localhost") + "/sign-in")
        tab.evaluate("document.cookie = 'probe=1; Secure'")
        found = {feature for feature, (expression, _) in FEATURES.items() if tab.evaluate(expression)}
    engine = request.node.callspec.id
    assert found == {feature for feature, (_, engines) in FEATURES.items() if engine in engines}


def test_the_documentation_has_the_table_of_the_paths_and_the_engines():
    engines = [engine.id for engine in ENGINES]
    tests = {name: signature(test).parameters for name, test in globals().items() if name.startswith("test_")}
    named = [name for name, fixtures in tests.items() if "user" in fixtures or "profile" in fixtures]
    paths = [name.removeprefix("test_").replace("_", " ").capitalize() for name in named]
    answers = {True: "yes", False: "no"}
    rows = [
        ["Path or feature", *engines],
        ["---"] * (1 + len(engines)),
        *([path, *["client, pages"] * len(engines)] for path in paths),
        *([name, *(answers[each in having] for each in engines)] for name, (_, having) in FEATURES.items()),
    ]
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    assert table in DOCUMENTATION.read_text(), f"the table in {DOCUMENTATION} has to be:\n{table}"
