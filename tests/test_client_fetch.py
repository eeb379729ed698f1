"""The client's requests: which it sends, with which token, to which API, and without some browser APIs."""

import threading

import pytest
from playwright.sync_api import Route

from tests.support.api_client import PASSWORD
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.tabs import SIGNED_IN, SIGNED_OUT, Person, World, app_at, reasons

pytestmark = [*NEEDS_CHROMIUM, pytest.mark.server]
NEW_PASSWORD = "another good password"
EXPIRED = 'Bearer error="invalid_token", error_description="expired"'
WITHOUT = {
    "storage": "Object.defineProperty(window, 'localStorage', { get() { throw new Error('refused') } })",
    "channel": "delete window.BroadcastChannel",
    "locks": "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })",
}


class Sent:
    """The requests to a URL: the first `refused` of them get a 401, the others go through."""

    def __init__(self, here: World, refused: int) -> None:
        self.here, self.refused = here, refused
        self.tokens: list[str] = []
        self.bodies: list[str | None] = []

    def __call__(self, route: Route) -> None:
        if route.request.method == "OPTIONS":
            route.continue_()
            return
        self.tokens.append(route.request.headers.get("authorization", "none"))
        self.bodies.append(route.request.post_data)
        if len(self.tokens) > self.refused:
            route.continue_()
            return
        readable = {"Access-Control-Allow-Origin": self.here.app}
        readable["Access-Control-Expose-Headers"] = "WWW-Authenticate"
        route.fulfill(status=401, headers={**readable, "WWW-Authenticate": EXPIRED})


PATCH = """() => client.fetch('/me', {
  method: 'PATCH', headers: { 'Content-Type': 'application/json' },
  body: '{"preferences": {"theme": "dark"}}',
}).then((answer) => answer.status)"""


def test_a_401_renews_once_and_repeats_the_request_once_with_its_body(here: World, person: Person):
    """Fails without the second send() of fetch()."""
    page = person.sign_up("once")
    sent = Sent(here, refused=1)
    page.route("**/me", sent)
    assert page.evaluate(PATCH) == 200
    assert len(sent.tokens) == len(set(sent.tokens)) == 2
    assert sent.bodies[0] == sent.bodies[1] != None  # noqa: E711 - equal, and not None
    assert len(person.wire.refreshes) == 1


def test_a_second_401_is_the_apps(here: World, person: Person):
    """Fails with a loop in fetch(): an API that refuses every token would get requests without end."""
    page = person.sign_up("twice")
    sent = Sent(here, refused=9)
    page.route("**/me", sent)
    assert page.evaluate(PATCH) == 401
    assert len(sent.tokens) == 2
    assert page.evaluate("() => client.user.username") == "twice"


def test_nobody_else_is_told_the_token(here: World, person: Person):
    """Fails without `trusted` in fetch()."""
    page = person.sign_up("secret")
    with app_at() as elsewhere:
        sent = Sent(here, refused=9)
        page.route(f"{elsewhere}/*", sent)
        assert page.evaluate("(url) => client.fetch(url).then((it) => it.status)", f"{elsewhere}/") == 401
    assert sent.tokens == ["none"]


def test_to_stay_is_to_be_there_without_any_input(person: Person):
    """Fails without `active` in stay(). At the first call the page was just opened."""
    page = person.sign_up("stays")
    for _ in range(2):
        page.evaluate("() => client.stay()")
    assert [refresh.active for refresh in person.wire.refreshes] == [True, True]


def test_a_confirmed_and_a_new_password_go_on_with_the_session(person: Person, here: World):
    """Fails if reauthenticate() or changePassword() does not use the generation of the new cookie."""
    page = person.sign_up("changes")
    assert page.evaluate("() => client.stay().then(() => true)")
    here.rotation_is_due("changes")
    losses = ["answer", *["request"] * 2]  # a rotation of which this browser receives nothing
    person.wire.lose = lambda: losses.pop(0) if losses else None
    assert page.evaluate("() => client.stay().then(() => 'answered', () => 'lost')") == "lost"
    before = person.cookie()["value"]
    page.evaluate("(password) => client.reauthenticate({ password })", PASSWORD)
    assert person.cookie()["value"] != before
    page.wait_for_timeout(1_200)  # the grace is over
    assert page.evaluate("() => client.stay().then(() => 'answered')") == "answered"
    body = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    page.evaluate("(body) => client.changePassword(body)", body)
    page.reload()
    page.wait_for_function(SIGNED_IN)
    assert person.wire.statuses() == {200}


def test_a_tab_whose_refresh_meets_a_new_secret_stays_signed_in(person: Person):
    """Fails without `outdated` in refresh(). Without Web Locks a refresh is under way in the other tab."""
    person.context.add_init_script(WITHOUT["locks"])
    page = person.sign_up("meets")
    second = person.tab(until=SIGNED_IN)
    confirmed, arrived = threading.Event(), threading.Event()

    def hold() -> None:
        arrived.set()
        confirmed.wait(60)

    person.wire.lose = hold
    second.evaluate("() => { window.staying = client.stay().then(() => 'answered', String) }")
    arrived.wait(60)
    page.evaluate("(password) => client.reauthenticate({ password })", PASSWORD)
    confirmed.set()
    assert second.evaluate("() => staying") == "answered"
    assert [refresh.status for refresh in person.wire.refreshes] == [401, 200]
    for tab in (page, second):
        assert tab.evaluate("() => client.fetch('/protected').then((it) => it.status)") == 200
        assert reasons(tab)[-1] is None


@pytest.mark.parametrize("missing", [("storage",), ("channel",), ("locks",), tuple(WITHOUT)], ids="+".join)
def test_it_works_without(person: Person, here: World, missing):
    """Fails if a browser feature is used without a check whether it exists."""
    for part in missing:
        person.context.add_init_script(WITHOUT[part])
    name = "without-" + "-".join(missing)
    page = person.sign_up(name)
    second = person.tab(until=SIGNED_IN)
    here.rotation_is_due(name)
    losses = ["answer"]
    person.wire.lose = lambda: losses.pop() if losses else None
    assert second.evaluate("() => client.stay().then(() => 'answered')") == "answered"
    assert page.evaluate("() => client.stay().then(() => 'answered')") == "answered"
    assert person.wire.statuses() == {200}
    second.evaluate("() => client.signOut()")
    page.evaluate("() => client.fetch('/protected')")
    page.wait_for_function(SIGNED_OUT)
    assert reasons(page)[-1] in ("logout", "invalid_refresh_token")
