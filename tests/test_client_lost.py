"""Messages between a browser and the server are lost, at random and one by one. No user is signed out."""

import os
import random
import sys
import time
from functools import partial

import pytest
from playwright.sync_api import Page, Route

from tests.support.browser import NEEDS_CHROMIUM
from tests.support.tabs import SIGNED_IN, SIGNED_OUT, Person, World, reasons
from tests.support.waiting import eventually
from tests.support.wire import Loss, Wire

LOSSES = 100 if "SESSIONAPI_PROVE" in os.environ else 8
KINDS: list[Loss] = ["request", "answer", "body"]
pytestmark = [*NEEDS_CHROMIUM, pytest.mark.server, pytest.mark.timeout(900)]
TRY = "() => client.stay().then(() => true, () => false)"
BEGIN = "() => void client.stay().catch(() => {})"


def lose(at: Wire, kind: Loss, *, then_all: bool) -> None:
    """Lose the next refresh in this way, and if requested all requests after it."""
    first = [kind]
    at.lose = lambda: first.pop() if first else ("request" if then_all else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reloaded", [False, True], ids=["", "reloaded"])
def test_a_loss_at_a_rotation_signs_nobody_out_however_late_it_is_tried_again(
    here: World, person: Person, kind, reloaded
):
    """Fails without the key in storage: a reloaded page would create another one."""
    name = f"once-{kind}-{reloaded}"
    page = person.sign_up(name)
    assert page.evaluate(TRY)
    here.rotation_is_due(name)
    lose(person.wire, kind, then_all=reloaded)
    page.evaluate(BEGIN)
    eventually(lambda: person.wire.lost)
    if reloaded:
        page.wait_for_timeout(1200)  # the grace of 1 s is over
        page.reload()
        person.wire.lose = lambda: None
        page.wait_for_function(SIGNED_IN)
    assert page.evaluate(TRY)
    assert person.wire.statuses() == {200}
    assert person.wire.refreshes[-1].generation == 1
    arrived = [refresh.lost for refresh in person.wire.refreshes]
    if kind != "request":
        lost, again = person.wire.refreshes[arrived.index(kind) :][:2]
        assert again.key == lost.key


@pytest.mark.prove
def test_losses_at_random_sign_nobody_out(here: World, person: Person):
    """Fails without the retry, or with another key in it."""
    dice = random.Random(20)
    tabs = [person.sign_up("random"), person.tab(until=SIGNED_IN)]
    person.wire.lose = lambda: dice.choice(KINDS) if dice.random() < 0.6 else None
    began, reloads = time.monotonic(), 0
    while person.wire.lost < LOSSES:
        page = dice.choice(tabs)
        if dice.random() < 0.2:
            page.evaluate(BEGIN)
            page.reload()
            page.wait_for_function("() => window.client")
            reloads += 1
        page.evaluate(TRY)
    person.wire.lose = lambda: None
    for page in tabs:
        eventually(lambda page=page: page.evaluate(TRY))
        assert page.evaluate("() => client.user.username") == "random"
    assert person.wire.statuses() == {200}
    seen = person.wire.refreshes
    sys.stdout.write(
        f"\n{person.wire.lost} refreshes lost of {len(seen)} that arrived and more, {reloads} reloads, "
        f"{seen[-1].generation} rotations in {time.monotonic() - began:.0f} s: no user signed out\n"
    )


INDEFINITE = [
    (500, "{}"),
    (503, '{"code": "unavailable"}'),
    (429, '{"code": "rate_limited"}'),
    (403, '{"code": "csrf_rejected"}'),
    (401, "<h1>Log in to the network of this hotel</h1>"),
    (200, "<h1>Log in to the network of this hotel</h1>"),
    None,
]
"""Responses that prove nothing about the session; None is a missing response."""


def readable(here: World, **more: str) -> dict[str, str]:
    """Return the headers with which the page may read a response."""
    exposed = {"Access-Control-Expose-Headers": "Retry-After", **more}
    return {
        "Access-Control-Allow-Origin": here.app,
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Allow-Headers": "idempotency-key, content-type",
        **exposed,
    }


def answers(here: World, answer: tuple[int, str] | None, route: Route) -> None:
    if answer is None:
        route.abort()
    elif route.request.method == "OPTIONS":
        route.fulfill(status=200, headers=readable(here))
    else:
        route.fulfill(status=answer[0], body=answer[1], headers=readable(here))


def test_only_a_definite_answer_of_the_service_signs_out(here: World, person: Person):
    """Fails if anything except the codes in ENDED ends a session."""
    page = person.sign_up("indefinite")
    for answer in INDEFINITE:
        page.route("**/refresh", partial(answers, here, answer))
        assert not page.evaluate(TRY), answer
        assert page.evaluate("() => client.getToken()")
        page.unroute("**/refresh")
        assert page.evaluate(TRY), answer
    assert page.evaluate("() => states.length") == 2


def test_retry_after_is_kept_to(here: World, person: Person):
    """Fails without quietUntil: an app that keeps retrying would send every attempt to a busy server."""
    page = person.sign_up("patient")
    asked: list[float] = []

    def refuse(route) -> None:
        asked.append(time.monotonic())
        route.fulfill(status=503, headers=readable(here, **{"Retry-After": "2"}), body="{}")

    page.route("**/refresh", refuse)
    for _ in range(10):
        assert not page.evaluate(TRY)
    assert len(asked) == 1
    page.unroute("**/refresh")
    eventually(lambda: page.evaluate(TRY), 5)
    assert time.monotonic() - asked[0] > 1.9


def test_the_end_is_told_with_its_reason_when_it_comes_and_on_a_new_page(here: World, person: Person):
    """Fails if `end` forgets the reason of the problem. The session reaches its idle end."""
    page = person.sign_up("ended")
    here.change("ended", "last_seen_at = last_seen_at - 8 * 86400000000")
    page.evaluate(TRY)
    assert reasons(page)[-1] == "idle"
    again = person.tab(until=SIGNED_OUT)
    assert reasons(again)[-1] == "idle"


def test_a_session_that_was_revoked_elsewhere_ends_with_the_next_call(here: World, person: Person):
    """Fails without the renewal after a 401 in fetch()."""
    other = here.person()
    page = person.sign_up("lost-phone")
    elsewhere: Page = other.tab()
    elsewhere.evaluate(
        "(password) => client.signIn({ username: 'lost-phone', password })", "correct horse battery"
    )
    revoke = "() => client.fetch('/sessions?keep_current=true', { method: 'DELETE' }).then((it) => it.status)"
    assert elsewhere.evaluate(revoke) == 200
    began = time.monotonic()
    assert page.evaluate("() => client.fetch('/protected').then((answer) => answer.status)") == 401
    page.wait_for_function(SIGNED_OUT)
    assert time.monotonic() - began < 2
    assert reasons(page)[-1] == "revoked_by_user"
    other.context.close()
