"""The parts that both verifiers share: options, fetches, and log lines."""

import contextlib
import json
import logging
import os
import re
import time
import weakref
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from ssl import SSLContext
from typing import Any

import httpx

from sessionapi.bounded_http import Answer, Bounds, OutOfBounds
from sessionapi.clock import Clock, system_clock
from sessionapi.errors import StartupError
from sessionapi.tokens.access_token import TokenExpectations
from sessionapi.verifier.state import Core, Limits, max_age_of

log = logging.getLogger("sessionapi.verifier")

LEEWAY = 5
"""Seconds that a token is accepted after `exp`, and before `iat`: the clocks of two hosts differ."""
QUIET = timedelta(minutes=1)
"""Between two lines of the log about the list: it is asked for all the time."""
UNCHANGED, UNAUTHORIZED = 304, 401
POLL = 0.5
"""Seconds between two looks at the list of ended sessions."""
LARGEST_KEYS = 256 * 2**10
"""Bytes of a JWK Set, unpacked: some 1,000 keys, where an issuer has a handful."""
LARGEST_LIST = 16 * 2**20
"""Bytes of the list of ended sessions, unpacked: some 200,000 sessions."""
SLACK = 1.0
"""Seconds that a round of following may be late before it counts as halted: the machine is busy."""


class Rounds:
    """The deadline of a follower's next sign.

    A follower without one has been halted: its task was cancelled, its event loop isn't run, its process
    was suspended. Without this, a verifier would go on with an old list, and log nothing.
    """

    def __init__(self, poll: float, limits: Limits) -> None:
        self._state_sync = poll
        self._round = 2 * limits.fetch  # the list, and the keys if they have changed
        self._due = float("-inf")

    @property
    def longest(self) -> float:
        """Seconds that a round takes at most."""
        return self._round + SLACK

    @property
    def halted(self) -> bool:
        """True before the first round, or if the next sign is overdue."""
        return time.monotonic() > self._due

    def begun(self) -> None:
        """Note that a round begins. After a halt it has to end before the list counts as fresh."""
        if not self.halted:
            self._due = time.monotonic() + self.longest

    def ended(self) -> None:
        """Note that a round has ended, and that the next one begins after the pause."""
        self._due = time.monotonic() + self._state_sync + SLACK

    def given_up(self) -> None:
        """Note that no round has ended in time, so that not every token waits for the next one."""
        self._due = time.monotonic() + self.longest


class Common:
    """The state that does not depend on a thread or an event loop.

    `issuer` is the `iss` of the tokens, and the address of the service unless `url` is another one. With
    `jwks` the keys are fixed and nothing is ever fetched, for tests. With a `service_token` ended sessions
    are followed; without one a token of an ended session is accepted until it expires (60 s).
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str = "sessionapi",
        url: str | None = None,
        jwks: Mapping[str, Any] | None = None,
        service_token: str | None = None,
        limits: Limits | None = None,
        leeway: int = LEEWAY,
        poll: float = POLL,
        clock: Clock = system_clock,
    ) -> None:
        self._url = (url or issuer).rstrip("/")
        self._service_token = _checked(service_token)
        self._state_sync = poll
        self._clock = clock
        self._etag: str | None = None
        self._told = ""
        self._told_at: datetime | None = None
        self._limits = limits or Limits()
        self._core = Core(TokenExpectations(issuer, audience, leeway), self._limits, fixed=jwks is not None)
        if jwks is not None:
            self._core.take_keys(jwks, clock())
            if not self._core.has_keys:
                raise StartupError("the JWK Set holds no key that can be used")
        _VERIFIERS.add(self)

    def after_fork(self) -> None:
        """Begin again in a child process, where the threads and loops of its parent are not running."""
        self._core.after_fork()
        self._etag = None

    @cached_property
    def _ssl(self) -> SSLContext:
        """The SSL context of all clients: reading the list of authorities takes 20 ms."""
        return httpx.create_ssl_context()

    def _bounds(self, request: httpx.Request) -> Bounds:
        largest = LARGEST_LIST if request.url.path.endswith("/revocations") else LARGEST_KEYS
        return Bounds(self._limits.fetch, largest)

    def _keys_request(self) -> httpx.Request:
        return httpx.Request("GET", f"{self._url}/.well-known/jwks.json")

    def _take_keys(self, answer: Answer | Exception) -> None:
        self._core.tried(self._clock())
        body = _json_of(answer)
        if isinstance(body, str):
            self._core.failed(body)
        elif isinstance(answer, Answer):
            self._core.take_keys(body, self._clock(), max_age_of(answer.headers.get("cache-control")))

    def _revocations_request(self) -> httpx.Request:
        headers = {"Authorization": f"Bearer {self._service_token}"}
        if self._etag:
            headers["If-None-Match"] = self._etag
        return httpx.Request("GET", f"{self._url}/revocations", headers=headers)

    def _take_revocations(self, answer: Answer | Exception) -> None:
        """Take over the list. A failure leaves what we have: tokens of ended sessions die within 60 s."""
        self._tell(self._wrong_with(answer))

    def _wrong_with(self, answer: Answer | Exception) -> str:
        """Take over the list, or return what is wrong with it."""
        body = _json_of(answer)
        if isinstance(answer, Exception) or isinstance(body, str):
            status = getattr(answer, "status_code", None)
            hint = " (is the service token right?)" if status == UNAUTHORIZED else ""
            return "" if status == UNCHANGED else f"{body}{hint}"
        try:
            self._core.take_revocations(body, self._clock())
        except (KeyError, TypeError):
            return "its answer is not one of ours"
        self._etag = answer.headers.get("etag")
        return ""

    @contextlib.contextmanager
    def _whatever_comes(self) -> Iterator[None]:
        """Go on following whatever an issuer answers, and say what it was."""
        try:
            yield
        except Exception as problem:
            self._etag = None
            self._tell(type(problem).__name__)

    def _tell(self, wrong: str) -> None:
        """Log why the list can't be had, and when it can again: what is new, at most a line a minute."""
        now = self._clock()
        if wrong == self._told or (self._told_at and now < self._told_at + QUIET):
            return
        self._told, self._told_at = wrong, now
        if not wrong:
            log.warning("ended sessions are refused at once again")
            return
        log.warning(
            "GET %s/revocations: %s; meanwhile ended sessions are refused only when their tokens die",
            re.sub("//[^/]*@", "//", self._url),
            wrong,
        )


_VERIFIERS: "weakref.WeakSet[Common]" = weakref.WeakSet()


def _after_fork() -> None:
    for verifier in list(_VERIFIERS):
        verifier.after_fork()


if hasattr(os, "register_at_fork"):  # not on SlidingWindow, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


def _json_of(answer: Answer | Exception) -> dict[str, Any] | str:
    """Return the object of a good answer, or what is wrong with it."""
    if isinstance(answer, OutOfBounds):
        return str(answer)
    if isinstance(answer, httpx.ProtocolError) or not isinstance(answer, Answer | httpx.HTTPError):
        return type(answer).__name__  # its text may repeat what was sent, our credential too
    if isinstance(answer, Exception):
        return f"{type(answer).__name__}: {answer}"
    if answer.status_code != 200:
        return f"it answered {answer.status_code}"
    try:
        body = json.loads(answer.content)
    except (ValueError, RecursionError):
        return "its answer is not JSON"
    return body if isinstance(body, dict) else "its answer is not an object"


def _checked(service_token: str | None) -> str | None:
    """Return a service token as it may stand in a header: one that was read from a file ends in a line."""
    token = service_token.strip() if service_token else None
    if token and not re.fullmatch("[\x21-\x7e]+", token):
        raise StartupError("the service token is none: it has letters that no header may have")
    return token
