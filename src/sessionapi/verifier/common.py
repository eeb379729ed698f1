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
"""Seconds that a token is accepted after `exp` and before `iat`, because the clocks of two hosts differ."""
QUIET = timedelta(minutes=1)
"""The minimum time between two log lines about the list, which is fetched every POLL seconds."""
UNCHANGED, UNAUTHORIZED = 304, 401
POLL = 0.5
"""Seconds between two fetches of the list of ended sessions."""
LARGEST_KEYS = 256 * 2**10
"""Maximum size of a JWK Set, decompressed: about 1,000 keys, while an issuer has a handful."""
LARGEST_LIST = 16 * 2**20
"""Maximum size of the list of ended sessions, decompressed: about 200,000 sessions."""
SLACK = 1.0
"""Seconds by which a round may be late, because the machine is busy, before following counts as halted."""


class Rounds:
    """The deadline for the next heartbeat of the task or thread that follows the list.

    If it is missed, following has halted, because the task was cancelled, its event loop isn't running, or
    the process was suspended. Without this deadline a verifier would continue with an old list and log
    nothing.
    """

    def __init__(self, poll: float, limits: Limits) -> None:
        self._state_sync = poll
        self._round = 2 * limits.fetch  # the list, and the keys if they have changed
        self._due = float("-inf")

    @property
    def longest(self) -> float:
        """The maximum duration of a round, in seconds."""
        return self._round + SLACK

    @property
    def halted(self) -> bool:
        """True before the first round, or if the next heartbeat is overdue."""
        return time.monotonic() > self._due

    def begun(self) -> None:
        """Record that a round begins. After a halt it must end before the list counts as fresh."""
        if not self.halted:
            self._due = time.monotonic() + self.longest

    def ended(self) -> None:
        """Record that a round has ended, and that the next one begins after the pause."""
        self._due = time.monotonic() + self._state_sync + SLACK

    def given_up(self) -> None:
        """Record that no round ended in time, so that not every token waits for the next one."""
        self._due = time.monotonic() + self.longest


class Common:
    """The state that does not depend on a thread or an event loop.

    `issuer` is the `iss` of the tokens, and the base URL of the service unless `url` is given. With `jwks`
    the keys are fixed and nothing is ever fetched, which is useful in tests. With a `service_token` the
    verifier follows the list of ended sessions. Without one, a token of an ended session is accepted until it
    expires (60 s).
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
        self._logged = ""
        self._logged_at: datetime | None = None
        self._limits = limits or Limits()
        self._core = Core(TokenExpectations(issuer, audience, leeway), self._limits, fixed=jwks is not None)
        if jwks is not None:
            self._core.take_keys(jwks, clock())
            if not self._core.has_keys:
                raise StartupError("the JWK Set contains no usable key; pass one with an ES256 or RS256 key")
        _VERIFIERS.add(self)

    def after_fork(self) -> None:
        """Start again in a child process, where the threads and event loops of the parent do not run."""
        self._core.after_fork()
        self._etag = None

    @cached_property
    def _ssl(self) -> SSLContext:
        """The SSL context of all clients, created once because loading the CA certificates takes 20 ms."""
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
        """Store the list. After a failure the old list stays; tokens of ended sessions expire within 60 s."""
        self._log_list_state(self._wrong_with(answer))

    def _wrong_with(self, answer: Answer | Exception) -> str:
        """Store the list, or return a text about the error. An empty text means success."""
        body = _json_of(answer)
        if isinstance(answer, Exception) or isinstance(body, str):
            status = getattr(answer, "status_code", None)
            hint = " (is the service token right?)" if status == UNAUTHORIZED else ""
            return "" if status == UNCHANGED else f"{body}{hint}"
        try:
            self._core.take_revocations(body, self._clock())
        except (KeyError, TypeError):
            return "the response is not a list of ended sessions"
        self._etag = answer.headers.get("etag")
        return ""

    @contextlib.contextmanager
    def _log_exceptions(self) -> Iterator[None]:
        """Log any exception and continue, so that no response of the issuer can stop the background work."""
        try:
            yield
        except Exception as problem:
            self._etag = None
            self._log_list_state(type(problem).__name__)

    def _log_list_state(self, wrong: str) -> None:
        """Log when the list can't be fetched and when it can again, but at most one line per minute."""
        now = self._clock()
        if wrong == self._logged or (self._logged_at and now < self._logged_at + QUIET):
            return
        self._logged, self._logged_at = wrong, now
        if not wrong:
            log.warning("tokens of ended sessions are refused immediately again")
            return
        log.warning(
            "GET %s/revocations: %s; tokens of ended sessions are now accepted until they expire",
            re.sub("//[^/]*@", "//", self._url),
            wrong,
        )


_VERIFIERS: "weakref.WeakSet[Common]" = weakref.WeakSet()


def _after_fork() -> None:
    for verifier in list(_VERIFIERS):
        verifier.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)


def _json_of(answer: Answer | Exception) -> dict[str, Any] | str:
    """Return the JSON object of a successful response, or else a text about the error."""
    if isinstance(answer, OutOfBounds):
        return str(answer)
    if isinstance(answer, httpx.ProtocolError) or not isinstance(answer, Answer | httpx.HTTPError):
        return type(answer).__name__  # its text may contain the request, including our credential
    if isinstance(answer, Exception):
        return f"{type(answer).__name__}: {answer}"
    if answer.status_code != 200:
        return f"the response is {answer.status_code}"
    try:
        body = json.loads(answer.content)
    except (ValueError, RecursionError):
        return "the response is not JSON"
    return body if isinstance(body, dict) else "the response is not a JSON object"


def _checked(service_token: str | None) -> str | None:
    """Return a service token without the line end that it has if it was read from a file.

    Raises StartupError if an HTTP header cannot carry it.
    """
    token = service_token.strip() if service_token else None
    if token and not re.fullmatch("[\x21-\x7e]+", token):
        raise StartupError("invalid service token: it contains characters that an HTTP header cannot carry")
    return token
