"""The client in several tabs: one refresh and one sign-out for all, and no tab waits long."""

import os
import threading

import httpx
import pytest
from playwright.sync_api import Page, Route

from tests.support.api_client import PASSWORD, bearer, refusal
from tests.support.browser import NEEDS_CHROMIUM
from tests.support.tabs import SIGN_UP, SIGNED_IN, SIGNED_OUT, Person, World, reasons
from tests.support.waiting import eventually

pytestmark = [*NEEDS_CHROMIUM, pytest.mark.server]
TIMED = """async () => {
  const began = performance.now();
  await client.stay();
  return performance.now() - began;
}"""

SLEPT = "() => { const now = Date.now; Date.now = () => now() + 3600_000 }"
MUTE_LOCKS = {
    "every request": "(name, options, run) => never(run)",
    "a theft": """(name, { steal, signal }, run) => steal ? never(run) : new Promise((done, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason));
    })""",
}
"""Lock managers that don't answer. No browser can be made to have this fault, so the page replaces it."""


def start(page: Page, call: str) -> None:
    """Start something in a page and don't wait for it."""
    page.evaluate(f"() => void {call}.catch(() => {{}})")


def test_a_second_tab_is_signed_in_and_asks_the_server_for_nothing(person: Person):
    first = person.sign_up("second-tab")
    second = person.tab(until=SIGNED_IN)
    assert second.evaluate("() => client.user.username") == "second-tab"
    assert second.evaluate("() => client.getToken()") == first.evaluate("() => client.getToken()")
    assert person.wire.refreshes == []


def test_a_reloaded_page_is_signed_in_and_the_token_is_in_no_storage(person: Person):
    page = person.sign_up("reload")
    token = person.token()
    page.reload()
    page.wait_for_function(SIGNED_IN)
    kept = page.evaluate("() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert [text for text in (token, person.token(), "sr_") if text in kept] == []
    assert [each.status for each in person.wire.refreshes] == [200]


def test_a_tab_that_dies_with_the_lock_stalls_nobody(person: Person):
    dying = person.sign_up("dying")
    other = person.tab(until=SIGNED_IN)
    gate = person.wire.hold = threading.Event()
    start(dying, "client.stay()")
    eventually(lambda: person.wire.refreshes)
    dying.close()
    assert other.evaluate(TIMED) < 1_300  # the time that it waits for a tab that is mute
    gate.set()


@pytest.mark.parametrize("unanswered", MUTE_LOCKS)
def test_a_lock_manager_that_does_not_answer_stalls_no_tab_and_its_late_answer_repeats_nothing(
    person: Person, unanswered: str
):
    person.context.add_init_script(f"""
      window.late = [];
      const never = (run) => new Promise(() => late.push(run));
      LockManager.prototype.request = {MUTE_LOCKS[unanswered]};
    """)
    first = person.sign_up(f"mute-{len(unanswered)}")
    second = person.tab(until=SIGNED_IN)
    second.evaluate("() => client.stay()")
    for page in (first, second):
        assert page.evaluate("() => Promise.all(late.map((run) => run())).then((all) => all.length)") > 0
    assert [refresh.status for refresh in person.wire.refreshes] == [200]


@pytest.mark.prove
@pytest.mark.skipif("SESSIONAPI_PROVE" not in os.environ, reason="needs a quiet machine: run by make prove")
def test_a_slow_answer_is_not_taken_for_a_frozen_tab(person: Person):
    """Fails without the heartbeat of withLock(): after 2 s all tabs would send a request at once."""
    slow = person.sign_up("slow")
    other = person.tab(until=SIGNED_IN)
    gate = person.wire.hold = threading.Event()
    threading.Timer(3, gate.set).start()
    start(slow, "client.stay()")
    eventually(lambda: person.wire.refreshes)
    assert other.evaluate(TIMED) > 2_500
    assert person.wire.most_under_way == 1
    assert len(person.wire.refreshes) == 2


def test_of_tabs_that_wake_up_together_one_asks(person: Person):
    """A laptop slept, so only the wall clock moved on. Fails now and then without ask() under the lock."""
    person.sign_up("laptop")
    old = person.token()
    tabs = [person.context.pages[0], *(person.tab(until=SIGNED_IN) for _ in range(4))]
    for page in tabs:
        page.evaluate(SLEPT)
    gate = person.wire.hold = threading.Event()
    for page in tabs:
        page.evaluate("() => { window.woken = client.getToken() }")
    eventually(lambda: person.wire.refreshes)
    gate.set()
    tokens = {page.evaluate("() => woken") for page in tabs}
    assert len(tokens) == len(person.wire.refreshes) == 1
    assert old not in tokens


def test_a_sign_out_in_one_tab_signs_out_all_within_a_second(here: World, person: Person):
    """Fails without the message of end(). The old access token is refused at once."""
    first = person.sign_up("leave")
    others = [person.tab(until=SIGNED_IN) for _ in range(3)]
    token = person.token()
    for page in others:
        page.evaluate("() => client.onChange(() => (window.told ??= Date.now()))")
    left_at = first.evaluate("() => client.signOut().then(() => Date.now())")
    for page in [first, *others]:
        page.wait_for_function(SIGNED_OUT)
    assert max(page.evaluate("() => told") for page in others) - left_at < 1_000
    for page in [first, *others]:
        assert reasons(page)[-1] == "logout"
        assert page.evaluate("() => client.getToken()") is None
    answer = httpx.get(f"{here.server.url}/protected", headers=bearer(token))
    assert refusal(answer) == (401, "session_revoked", "logout")
    assert [each for each in person.context.cookies() if each["name"] == "__Host-session"] == []
    assert person.tab(until=SIGNED_OUT).evaluate("() => client.user") is None


def test_a_sign_in_as_somebody_else_is_one_in_every_tab(person: Person):
    first = person.sign_up("ada")
    second = person.tab(until=SIGNED_IN)
    second.evaluate(SIGN_UP, ["grace", PASSWORD, True])
    first.wait_for_function("() => client.user.username === 'grace'", timeout=1_000)
    assert first.evaluate("() => client.getToken()") == second.evaluate("() => client.getToken()")


def test_a_request_of_one_user_is_not_repeated_as_another(here: World, person: Person):
    """Fails without `user.id === id` in fetch()."""
    first = person.sign_up("ada-1")
    second = person.tab(until=SIGNED_IN)
    old = person.token()
    second.evaluate(SIGN_UP, ["grace-1", PASSWORD, True])
    first.wait_for_function("() => client.user.username === 'grace-1'")
    sent: list[str] = []

    def refuse(route: Route) -> None:
        sent.append(route.request.headers["authorization"])
        if len(sent) == 1:
            second.evaluate(SIGN_UP, ["ada-2", PASSWORD, True])
            first.wait_for_function("() => client.user.username === 'ada-2'")
        route.fulfill(status=401, headers={"Access-Control-Allow-Origin": here.app})

    first.route("**/sessions*", refuse)
    status = first.evaluate("() => client.fetch('/sessions').then((answer) => answer.status)")
    assert status == 401
    assert len(sent) == 1
    assert f"Bearer {old}" not in sent
