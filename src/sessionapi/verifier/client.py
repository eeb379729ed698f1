"""The two verifiers, one for threads and one for asyncio. `state.Core` decides what they fetch.

A background task ends with its event loop, and a background thread with its process. So with each token both
verifiers check whether theirs still runs, and start a new one if it doesn't, for example after a fork, in
another event loop, or after the process was suspended.
"""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx

from sessionapi import bounded_http
from sessionapi.bounded_http import Answer, Connection
from sessionapi.tokens.access_token import Claims
from sessionapi.verifier.common import Common, Rounds

NO_ROUND = "the list was not fetched in time"


class _InLoop:
    """The background tasks of an AsyncVerifier in one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, rounds: Rounds) -> None:
        self.loop = loop
        self.rounds = rounds
        self.round_ended = asyncio.Event()
        self.fetching: asyncio.Task[None] | None = None
        self.following: asyncio.Task[None] | None = None

    def end_round(self) -> None:
        """Wake the callers that wait for this round. Later callers wait for the next one."""
        self.rounds.ended()
        self.round_ended.set()
        self.round_ended = asyncio.Event()

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks that have not ended."""
        return [task for task in (self.following, self.fetching) if task is not None and not task.done()]


class AsyncVerifier(Common):
    """Verifies in one or more event loops. All waiting callers share one fetch.

    Close it with `aclose()`. Verifying another token after that starts it again.
    """

    def __init__(self, issuer: str, **options: Any) -> None:
        super().__init__(issuer, **options)
        self._entering = threading.Lock()
        self._states: list[_InLoop] = []
        self._state: _InLoop | None = None

    async def verify(self, token: str) -> Claims:
        """Return the claims of a valid token.

        Raises a subclass of AuthenticationError (401), or Unavailable (503) while the keys can't be fetched.
        """
        state = self._here()
        if self._service_token and state.rounds.halted:
            await self._catch_up(state)
        want = self._core.wanted(token, self._clock())
        if want != "nothing":
            fetching = self._fetch(state)
            if want == "now" and fetching is not None:
                await asyncio.shield(fetching)
        return self._core.verify(token, self._clock())

    async def aclose(self) -> None:
        """Stop following the list and close the connections, in this and all other running event loops."""
        states, self._states, self._state = self._states, [], None
        for state in states:
            for task in state.tasks:
                if state.loop is asyncio.get_running_loop():
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
                elif not state.loop.is_closed():
                    state.loop.call_soon_threadsafe(task.cancel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def after_fork(self) -> None:
        """Start again in a child process, because no task of the parent runs there."""
        super().after_fork()
        self._entering = threading.Lock()
        self._states, self._state = [], None

    @property
    def _following(self) -> asyncio.Task[None] | None:
        return None if self._state is None else self._state.following

    @property
    def _fetching(self) -> asyncio.Task[None] | None:
        return None if self._state is None else self._state.fetching

    def _here(self) -> _InLoop:
        """Return the state of the running event loop."""
        loop = asyncio.get_running_loop()
        state = self._state
        if state is not None and state.loop is loop:
            return state
        with self._entering:
            known = [each for each in self._states if not each.loop.is_closed()]
            state = next((each for each in known if each.loop is loop), None)
            if state is None:
                state = _InLoop(loop, Rounds(self._state_sync, self._limits))
                known.append(state)
            self._states, self._state = known, state
        return state

    async def _catch_up(self, state: _InLoop) -> None:
        """Start to follow the list, unless a task in this loop does, and wait for the current round."""
        if state.following is None or state.following.done():
            state.following = asyncio.create_task(self._follow(state))
        try:
            async with asyncio.timeout(state.rounds.longest):
                await state.round_ended.wait()
        except TimeoutError:
            state.rounds.given_up()
            self._log_list_state(NO_ROUND)

    def _fetch(self, state: _InLoop) -> asyncio.Task[None] | None:
        """Return the current fetch, started if the cooldown allows it, or else None."""
        if state.fetching is None or state.fetching.done():
            may = self._core.may_try(self._clock())
            state.fetching = asyncio.create_task(self._fetch_keys()) if may else None
        return state.fetching

    async def _fetch_keys(self, client: httpx.AsyncClient | None = None) -> None:
        self._take_keys(await self._send(self._keys_request(), client))

    async def _follow(self, state: _InLoop) -> None:
        try:
            async with self._client() as client:
                while True:
                    state.rounds.begun()
                    with self._log_exceptions():
                        self._take_revocations(await self._send(self._revocations_request(), client))
                        if self._core.keys_outdated:
                            await self._fetch_keys(client)
                    state.end_round()
                    await asyncio.sleep(self._state_sync)
        finally:
            state.round_ended.set()  # so that no caller waits for a round that does not end

    async def _send(
        self, request: httpx.Request, client: httpx.AsyncClient | None = None
    ) -> Answer | Exception:
        """Return the response, or the exception. Without a client, use a connection for this request only."""
        try:
            if client is not None:
                return await bounded_http.get(client, request.url, request.headers, self._bounds(request))
            async with self._client() as own:
                return await bounded_http.get(own, request.url, request.headers, self._bounds(request))
        except Exception as problem:
            return problem

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(verify=self._ssl) as client:
            yield client


class _InProcess:
    """The locks and the thread of a Verifier in one process, which a forked child can't use."""

    def __init__(self, rounds: Rounds) -> None:
        self.rounds = rounds
        self.fetching = threading.Lock()
        self.starting = threading.Lock()
        self.closing = threading.Event()
        self.round_ended = threading.Event()
        self.following: threading.Thread | None = None
        self.connection: Connection | None = None

    def end_round(self) -> None:
        """Wake the callers that wait for this round. Later callers wait for the next one."""
        self.rounds.ended()
        self.round_ended.set()
        self.round_ended = threading.Event()


class Verifier(Common):
    """Verifies in any thread. One thread fetches, and the others wait for it.

    Close it with `close()`. Verifying another token after that starts it again.
    """

    def __init__(self, issuer: str, **options: Any) -> None:
        super().__init__(issuer, **options)
        self._state = self._new_state()

    def verify(self, token: str) -> Claims:
        """Return the claims of a valid token. Raises the same errors as `AsyncVerifier.verify`."""
        state = self._state
        if self._service_token and state.rounds.halted:
            self._catch_up(state)
        want = self._core.wanted(token, self._clock())
        if want != "nothing" and state.fetching.acquire(blocking=want == "now"):
            try:  # after another thread's fetch the cooldown has begun, so this thread does not fetch
                if self._core.may_try(self._clock()):
                    self._fetch_keys()
            finally:
                state.fetching.release()
        return self._core.verify(token, self._clock())

    def close(self) -> None:
        """Stop following the list and close the connections."""
        state, self._state = self._state, self._new_state()
        state.closing.set()
        if state.connection is not None:
            state.connection.cut()
        if state.following is not None:
            state.following.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def after_fork(self) -> None:
        """Start again in a child process with new locks, because a parent's lock may never be released."""
        super().after_fork()
        self._state = self._new_state()

    @property
    def _following(self) -> threading.Thread | None:
        return self._state.following

    def _new_state(self) -> _InProcess:
        return _InProcess(Rounds(self._state_sync, self._limits))

    def _catch_up(self, state: _InProcess) -> None:
        """Start to follow the list, unless a thread of this process does, and wait for the current round."""
        round_ended = state.round_ended
        try:
            self._start_following(state)
        except RuntimeError as problem:  # no thread can be started, or the interpreter is ending
            state.rounds.given_up()
            self._log_list_state(str(problem))
            return
        if not round_ended.wait(state.rounds.longest):
            state.rounds.given_up()
            self._log_list_state(NO_ROUND)

    def _start_following(self, state: _InProcess) -> None:
        with state.starting:
            if state.following is None or not state.following.is_alive():
                state.following = threading.Thread(
                    target=self._follow, args=(state,), name="revocations", daemon=True
                )
                state.following.start()

    def _fetch_keys(self, connection: Connection | None = None) -> None:
        self._take_keys(self._send(self._keys_request(), connection))

    def _follow(self, state: _InProcess) -> None:
        state.connection = Connection(self._client())
        try:
            while not state.closing.is_set():
                state.rounds.begun()
                with self._log_exceptions():
                    self._take_revocations(self._send(self._revocations_request(), state.connection))
                    if self._core.keys_outdated:
                        with state.fetching:
                            self._fetch_keys(state.connection)
                state.end_round()
                state.closing.wait(self._state_sync)
        finally:
            state.round_ended.set()  # so that no caller waits for a round that does not end
            state.connection.close()

    def _send(self, request: httpx.Request, connection: Connection | None = None) -> Answer | Exception:
        """Return the response, or the exception. Without a connection, open one for this request only."""
        try:
            if connection is not None:
                return connection.get(request.url, request.headers, self._bounds(request))
            with self._client() as client:
                return Connection(client).get(request.url, request.headers, self._bounds(request))
        except Exception as problem:
            return problem

    def _client(self) -> httpx.Client:
        return httpx.Client(verify=self._ssl)
