"""The two verifiers: `core` decides, here is what it asks for over HTTP (httpx)."""

import asyncio
import contextlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Self

import httpx

from sessionapi.clock import Clock, system_clock
from sessionapi.errors import StartupError
from sessionapi.tokens import Claims, Rules
from sessionapi.verifier.core import Core, Limits, max_age_of

log = logging.getLogger("sessionapi.verifier")

TIMEOUT = 5.0
"""Seconds that the issuer has for an answer."""
LEEWAY = 5
"""Seconds that a token is still taken after `exp`: the clocks of two hosts differ."""
QUIET = timedelta(minutes=1)
"""Between two lines of the log about the list: it is asked for all the time."""
UNCHANGED, UNAUTHORIZED = 304, 401
POLL = 0.5
"""Seconds between two looks at the list of ended sessions."""


class _Common:
    """What both verifiers are made of.

    `issuer` is the `iss` of the tokens, and the address of the service unless `url` is another one. With
    `jwks` the keys are fixed and nothing is ever fetched, for tests. With a `service_token` ended sessions
    are followed; without one a token of an ended session is taken until it dies (60 s).
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
        self._poll = poll
        self._clock = clock
        self._etag: str | None = None
        self._told = ""
        self._told_at: datetime | None = None
        self._core = Core(Rules(issuer, audience, leeway), limits or Limits(), fixed=jwks is not None)
        if jwks is not None:
            self._core.take_keys(jwks, clock())
            if not self._core.has_keys:
                raise StartupError("the JWK Set holds no key that can be used")

    def _keys_request(self) -> httpx.Request:
        self._core.trying(self._clock())
        return httpx.Request("GET", f"{self._url}/.well-known/jwks.json")

    def _take_keys(self, answer: httpx.Response | Exception) -> None:
        body = _json_of(answer)
        if isinstance(body, str):
            self._core.failed(body)
        elif isinstance(answer, httpx.Response):
            self._core.take_keys(body, self._clock(), max_age_of(answer.headers.get("cache-control")))

    def _revocations_request(self) -> httpx.Request:
        headers = {"Authorization": f"Bearer {self._service_token}"}
        if self._etag:
            headers["If-None-Match"] = self._etag
        return httpx.Request("GET", f"{self._url}/revocations", headers=headers)

    def _take_revocations(self, answer: httpx.Response | Exception) -> None:
        """Take over the list. A failure leaves what we have: tokens of ended sessions die within 60 s."""
        self._tell(self._wrong_with(answer))

    def _wrong_with(self, answer: httpx.Response | Exception) -> str:
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


def _json_of(answer: httpx.Response | Exception) -> dict[str, Any] | str:
    """Return the object of a good answer, or what is wrong with it."""
    if isinstance(answer, httpx.ProtocolError):
        return type(answer).__name__  # its text repeats what was sent, our credential too
    if isinstance(answer, Exception):
        return f"{type(answer).__name__}: {answer}"
    if answer.status_code != 200:
        return f"it answered {answer.status_code}"
    try:
        body = answer.json()
    except (ValueError, RecursionError):
        return "its answer is not JSON"
    return body if isinstance(body, dict) else "its answer is not an object"


def _checked(service_token: str | None) -> str | None:
    """Return a service token as it may stand in a header: one that was read from a file ends in a line."""
    token = service_token.strip() if service_token else None
    if token and not re.fullmatch("[\x21-\x7e]+", token):
        raise StartupError("the service token is none: it has letters that no header may have")
    return token


class AsyncVerifier(_Common):
    """Verifies in an event loop. One fetch serves all who wait for it. Close it with `aclose()`."""

    def __init__(self, issuer: str, **options: Any) -> None:
        super().__init__(issuer, **options)
        self._http = httpx.AsyncClient(timeout=TIMEOUT)
        self._fetching: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._first_list = asyncio.Event()

    async def verify(self, token: str) -> Claims:
        """Return the claims of a good token.

        Raises AuthenticationError with its kinds (401), and Unavailable (503) while no keys can be had.
        """
        if self._service_token and self._following is None:
            self._following = asyncio.create_task(self._follow())
            await self._first_list.wait()
        want = self._core.wanted(token, self._clock())
        if want != "nothing":
            fetching = self._fetch()
            if want == "now" and fetching is not None:
                await asyncio.shield(fetching)
        return self._core.verify(token, self._clock())

    async def aclose(self) -> None:
        """Stop following and close the connections."""
        for task in (self._following, self._fetching):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _fetch(self) -> asyncio.Task[None] | None:
        """Return the fetch that is under way, begun if the cooldown allows, or None."""
        if self._fetching is None or self._fetching.done():
            may = self._core.may_try(self._clock())
            self._fetching = asyncio.create_task(self._fetch_keys()) if may else None
        return self._fetching

    async def _fetch_keys(self) -> None:
        self._take_keys(await self._send(self._keys_request()))

    async def _follow(self) -> None:
        while True:
            with self._whatever_comes():
                self._take_revocations(await self._send(self._revocations_request()))
                if self._core.keys_outdated:
                    await self._fetch_keys()
            self._first_list.set()
            await asyncio.sleep(self._poll)

    async def _send(self, request: httpx.Request) -> httpx.Response | Exception:
        try:
            return await self._http.send(request)
        except httpx.HTTPError as problem:
            return problem


class Verifier(_Common):
    """Verifies in any thread. One thread fetches, the others wait for it. Close it with `close()`."""

    def __init__(self, issuer: str, **options: Any) -> None:
        super().__init__(issuer, **options)
        self._http = httpx.Client(timeout=TIMEOUT)
        self._fetching = threading.Lock()
        self._closing = threading.Event()
        self._first_list = threading.Event()
        self._following: threading.Thread | None = None

    def verify(self, token: str) -> Claims:
        """Return the claims of a good token; raises what `AsyncVerifier.verify` does."""
        if self._service_token and not self._first_list.is_set():
            self._start_following()
            self._first_list.wait(2 * TIMEOUT)
        want = self._core.wanted(token, self._clock())
        if want != "nothing" and self._fetching.acquire(blocking=want == "now"):
            try:  # whoever waited for another's fetch finds it done, and the cooldown begun
                if self._core.may_try(self._clock()):
                    self._fetch_keys()
            finally:
                self._fetching.release()
        return self._core.verify(token, self._clock())

    def close(self) -> None:
        """Stop following and close the connections."""
        self._closing.set()
        if self._following is not None:
            self._following.join()
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start_following(self) -> None:
        with self._fetching:
            if self._following is None:
                self._following = threading.Thread(target=self._follow, name="revocations", daemon=True)
                self._following.start()

    def _fetch_keys(self) -> None:
        self._take_keys(self._send(self._keys_request()))

    def _follow(self) -> None:
        while not self._closing.is_set():
            with self._whatever_comes():
                self._take_revocations(self._send(self._revocations_request()))
                if self._core.keys_outdated:
                    with self._fetching:
                        self._fetch_keys()
            self._first_list.set()
            self._closing.wait(self._poll)

    def _send(self, request: httpx.Request) -> httpx.Response | Exception:
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            try:
                return self._http.send(request)
            except httpx.HTTPError as problem:
                return problem
        return RuntimeError("closed")
