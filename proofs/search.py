"""An exhaustive search of the refresh rules, with two tabs and one cookie jar: `python -m proofs.search`.

The world is small and relative. Time is counted in steps of five seconds since the last event of the session,
and generations relative to the stored one. So there are finitely many states, and all of them are visited,
nearest first. The server's decisions come from the real `policy.decide`.

A tab may refresh at any time. A request and its response are delayed by up to five seconds, or lost, and two
that are under way may arrive in either order. After five seconds a tab gives up its attempt, and a response
that has not arrived by then counts as lost. A page can be reloaded after its cookie was set and before its
script saw the response. A browser that crashes comes back with the cookie of half a minute before, when it
last wrote cookies to the disk. The faults are losses, reloads and crashes.
"""

import re
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import NamedTuple
from uuid import UUID

from sessionapi.models import DIGEST_SIZE, MAX_IDEMPOTENCY_KEYS, Attempt, Decision, Session
from sessionapi.sessions.policy import Policy, decide, digests

STEP = timedelta(seconds=5)
POLICY = Policy(rotate_after=timedelta(seconds=30))  # three graces, so it rotates as often as the rules allow
GRACE = POLICY.refresh_grace // STEP
APART = 3 * GRACE
NOW = datetime(2026, 11, 24, tzinfo=UTC)
PASS = " s pass"
OLDEST = -3
"""A token older than that of the generation before the last is reuse, however old it is."""


@dataclass(frozen=True)
class World:
    """The faults and rules of one search. `faults=None` is any number. All rules hold unless removed."""

    one_try_at_a_time: bool
    faults: int | None
    least_time_between_rotations: bool = True
    wait_after_a_late_repeat: bool = True
    key_per_token: bool = True
    new_key_only_for_newer: bool = True
    new_key_when_written: bool = True
    crashes: bool = True


class LoginAttempt(NamedTuple):
    """One tab's refresh under way: a request, then a response, or `lost`.

    `generation` is that of the token in a request, and the one that a response names. `waited` is the number
    of steps since the request was sent.
    """

    stage: str
    generation: int
    key: int
    waited: int = 0
    sets_cookie: bool = False


class Kept(NamedTuple):
    """The data that a script stores next to the cookie: its newest generation, and the key to send.

    `spent` is set while the key is still that of the previous generation. `seen` is True unless every script
    that received the new generation is gone.
    """

    generation: int
    key: int
    spent: bool = False
    seen: bool = True


class State(NamedTuple):
    """The whole state at one time. Generations are relative to the stored one; ages are steps up to APART."""

    rotated: int
    repeated: int | None
    kept_keys: tuple[int, ...]
    jar: int
    stores: tuple[Kept, ...]
    tries: tuple[LoginAttempt | None, LoginAttempt | None]
    faults: int = 0


class LoggedOut(Exception):
    """The server treated an honest client as a thief."""


def search(world: World) -> tuple[int, list[str] | None]:
    """Return the number of states, and the shortest path to a logout as sentences, or None."""
    stores = tuple(Kept(0, key) for key in range(1 if world.key_per_token else 2))
    start = renamed(State(APART, None, (), 0, stores, (None, None)))
    came_from: dict[State, tuple[State, str] | None] = {start: None}
    ahead = deque([start])
    while ahead:
        state = ahead.popleft()
        try:
            for text, following in steps(world, state):
                if following not in came_from:
                    came_from[following] = (state, text)
                    ahead.append(following)
        except LoggedOut as last:
            return len(came_from), [*path_to(state, came_from), str(last)]
    return len(came_from), None


def path_to(state: State, came_from: dict[State, tuple[State, str] | None]) -> list[str]:
    """Return the steps that led to a state, the first one first."""
    path = []
    while (step := came_from[state]) is not None:
        state, text = step
        path.append(text)
    return path[::-1]


def in_words(path: list[str]) -> list[str]:
    """Return a path with its generations counted from the first one, and the times between them added up."""
    lines, rotations, passed = [], 0, 0
    for text in path:
        if text.endswith(PASS):
            passed += int(text.removesuffix(PASS))
            continue
        if passed:
            lines.append(f"{passed} s pass")
            passed = 0
        lines.append(re.sub(r"{(-?\d+)}", lambda found: str(rotations + int(found[1])), text))  # noqa: B023
        rotations += text.endswith(": rotation")
    return lines


def steps(world: World, state: State) -> Iterator[tuple[str, State]]:
    """Yield every possible next step. Raises LoggedOut."""
    for tab, one in enumerate(state.tries):
        if one is None:
            if not world.one_try_at_a_time or state.tries == (None, None):
                yield from sent(world, state, tab)
            continue
        may_fail = world.faults is None or state.faults < world.faults
        name = "AB"[tab]
        if one.stage == "request":
            yield arrived(world, state, tab)
        elif one.stage == "response":
            yield deliver_response(world, state, tab, script=True)
            if may_fail and one.sets_cookie:
                yield (
                    f"{name} is reloaded: the cookie is set, the script saw no response",
                    fault(deliver_response(world, state, tab, script=False)[1], world),
                )
        if may_fail and one.stage != "lost":
            lost = with_try(state, tab, one._replace(stage="lost"))
            yield f"{name}'s {one.stage} is lost", fault(lost, world)
        if one.waited and one.stage == "lost":
            yield f"{name} abandons its attempt", with_try(state, tab, None)
    fresh = state.jar == 0 and state.rotated < APART
    if world.crashes and fresh and (world.faults is None or state.faults < world.faults):
        yield "the browser crashes and restores the previous cookie", fault(crashed(state), world)
    if not any(one and one.waited for one in state.tries):
        yield later(state, 1)
        if state.tries == (None, None):
            yield later(state, APART)


def sent(world: World, state: State, tab: int) -> Iterator[tuple[str, State]]:
    """Send the token in the jar with the tab's key. A spent key is replaced if the cookie is on the disk."""
    at = tab % len(state.stores)
    kept = state.stores[at]
    text = f"{'AB'[tab]} sends token {{{state.jar}}}"
    keys = [kept.key]
    if kept.spent and kept.seen and (state.rotated >= APART or not world.new_key_when_written):
        keys.append(1 + max(keys_in(state)))
    for key in keys:
        following = with_kept(state, at, Kept(kept.generation, key))
        description = text if key == kept.key else f"{text} with a new key"
        yield description, with_try(following, tab, LoginAttempt("request", state.jar, key))


def crashed(state: State) -> State:
    """Crash the browser. A cookie that wasn't on the disk yet is lost, with all scripts that received it."""
    stores = tuple(kept._replace(seen=False) if kept.spent else kept for kept in state.stores)
    return renamed(state._replace(jar=-1, tries=(None, None), stores=stores))


def arrived(world: World, state: State, tab: int) -> tuple[str, State]:
    """Let the server decide about a request and send its response."""
    request = state.tries[tab]
    assert request
    rotated, repeated = state.rotated, state.repeated
    if not world.least_time_between_rotations and request.generation == 0:
        rotated = APART
    if not world.wait_after_a_late_repeat:
        repeated = None
    decision = decide_request(rotated, repeated, state.kept_keys, request.generation, request.key)
    name = f"the server receives {'AB'[tab]}'s token {{{request.generation}}}"
    if decision.outcome == "reuse":
        unknown = ", with an unknown key" if request.generation == -1 else ""
        raise LoggedOut(f"{name} instead of {{0}}{unknown}: reuse, the user is logged out")
    sets_cookie = decision.outcome != "renewal"
    answer = LoginAttempt("response", 0, request.key, request.waited, sets_cookie=sets_cookie)
    following = with_try(state, tab, answer)
    if decision.outcome == "rotation":
        following = one_older(following)._replace(rotated=0, repeated=None, kept_keys=(request.key,))
        following = with_try(following, tab, answer)
    if decision.stores_key:
        following = following._replace(kept_keys=(*state.kept_keys, request.key))
    if decision.records_late_repeat:
        following = following._replace(repeated=0)
    return f"{name}: {decision.outcome}", renamed(following)


@cache
def decide_request(
    rotated: int, repeated: int | None, keys: tuple[int, ...], generation: int, key: int
) -> Decision:
    """Call the real policy; the stored generation is 9."""
    session = Session(
        user_id=UUID(int=1),
        id=UUID(int=2),
        generation=9,
        secret_digest=b"",
        rotated_at=NOW - rotated * STEP,
        repeated_at=None if repeated is None else NOW - repeated * STEP,
        retry_digests="".join(digest(one) for one in keys),
        created_at=NOW,
        auth_time=NOW,
        last_seen_at=NOW - rotated * STEP,
        idle_timeout=604_800,
        expires_at=NOW + timedelta(days=30),
        revoked_at=None,
        revoke_reason=None,
        ip=None,
        user_agent=None,
        device_name=None,
        amr=("pwd",),
        transport="cookie",
        remember=True,
    )
    assert len(digests(session)) <= MAX_IDEMPOTENCY_KEYS
    return decide(session, Attempt(9 + generation, digest(key)), NOW, POLICY)


def digest(key: int) -> str:
    """Return what a rotation stores of a key."""
    return f"{key:0{DIGEST_SIZE}x}"


def deliver_response(world: World, state: State, tab: int, *, script: bool) -> tuple[str, State]:
    """Deliver a response to the browser, and perhaps to the script, where a new generation gets a new key."""
    answer = state.tries[tab]
    assert answer
    following = with_try(state, tab, None)
    if answer.sets_cookie:
        following = following._replace(jar=answer.generation)
    at = tab % len(state.stores)
    kept = state.stores[at].generation
    if script and (
        answer.generation > kept or (answer.generation < kept and not world.new_key_only_for_newer)
    ):
        following = with_kept(following, at, Kept(answer.generation, state.stores[at].key, spent=True))
    return f"{'AB'[tab]} receives token {{{answer.generation}}}", renamed(following)


def later(state: State, steps_on: int) -> tuple[str, State]:
    """Let time pass."""
    tries = tuple(one and one._replace(waited=one.waited + 1) for one in state.tries)
    repeated = None if state.repeated is None else min(APART, state.repeated + steps_on)
    return f"{steps_on * STEP.seconds}{PASS}", state._replace(
        rotated=min(APART, state.rotated + steps_on), repeated=repeated, tries=tries
    )


def with_try(state: State, tab: int, one: LoginAttempt | None) -> State:
    """Return the state with another attempt of a tab, or with none."""
    tries = (one, state.tries[1]) if tab == 0 else (state.tries[0], one)
    return renamed(state._replace(tries=tries))


def with_kept(state: State, at: int, kept: Kept) -> State:
    """Return the state with other contents in a store."""
    stores = list(state.stores)
    stores[at] = kept
    return state._replace(stores=tuple(stores))


def fault(state: State, world: World) -> State:
    """Count a fault if faults are limited."""
    return state if world.faults is None else state._replace(faults=state.faults + 1)


def one_older(state: State) -> State:
    """Return the state after a rotation: every generation is one older."""

    def age(generation: int) -> int:
        return max(OLDEST, generation - 1)

    first, second = (one and one._replace(generation=age(one.generation)) for one in state.tries)
    stores = tuple(kept._replace(generation=age(kept.generation)) for kept in state.stores)
    return state._replace(jar=age(state.jar), stores=stores, tries=(first, second))


def keys_in(state: State) -> list[int]:
    """Return all keys that are still in use, in a fixed order."""
    under_way = [one.key for one in state.tries if one and one.stage == "request"]
    return [*(kept.key for kept in state.stores), *under_way, *state.kept_keys]


def renamed(state: State) -> State:
    """Return the state with its keys numbered in the order of `keys_in`: only equality of keys matters."""
    names: dict[int, int] = {}
    for key in keys_in(state):
        names.setdefault(key, len(names))
    first, second = (one and one._replace(key=names.get(one.key, -1)) for one in state.tries)
    return state._replace(
        stores=tuple(kept._replace(key=names[kept.key]) for kept in state.stores),
        tries=(first, second),
        kept_keys=tuple(names[key] for key in state.kept_keys),
    )


CLAIMS = {
    "One attempt at a time, any number of faults": World(one_try_at_a_time=True, faults=None),
    "Tabs that don't wait for each other, one fault": World(one_try_at_a_time=False, faults=1),
}
TAKEN_AWAY = {
    "Without the least time between rotations": "least_time_between_rotations",
    "Without the wait after a late repeat": "wait_after_a_late_repeat",
    "With a key that belongs to the tab, not to the token": "key_per_token",
    "With a new key for an older generation too": "new_key_only_for_newer",
    "With a new key before the cookie is on the disk": "new_key_when_written",
}


def report() -> str:
    """Return the results of the searches, as the documentation shows them."""
    lines = []
    for name, world in CLAIMS.items():
        states, path = search(world)
        lines.append(f"{name}: {states} states, {'a logout' if path else 'no logout'}.")
    for name, rule in TAKEN_AWAY.items():
        _, path = search(replace(World(one_try_at_a_time=False, faults=1), **{rule: False}))
        found = [f"  {number}. {text}" for number, text in enumerate(in_words(path or []), 1)]
        lines += ["", f"{name}:", *found]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{report()}\n")
