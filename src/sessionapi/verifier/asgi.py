"""ASGI middleware that lets nothing through without a good access token, in any framework."""

import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from sessionapi import bearer
from sessionapi.errors import AuthenticationError, SessionApiError
from sessionapi.verifier.clients import AsyncVerifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Protect:
    """Protects all paths of an app but those in `public`, which are compared letter by letter.

    The claims of the token are in `scope["state"]["claims"]`. A WebSocket without a good token is refused
    before it is accepted.
    """

    def __init__(self, app: App, verifier: AsyncVerifier, public: Collection[str] = ()) -> None:
        self._app = app
        self._verifier = verifier
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "lifespan" or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        try:
            claims = await self._verifier.verify(bearer.read(scope["headers"]))
        except SessionApiError as problem:
            await _refuse(problem, scope, send)
            return
        scope.setdefault("state", {})["claims"] = claims
        await self._app(scope, receive, send)


async def _refuse(problem: SessionApiError, scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": problem.code})
        return
    status, headers = status_and_headers(problem)
    body = {"type": "about:blank", "status": status, "detail": problem.detail, "code": problem.code}
    raw = {"content-type": "application/problem+json", "cache-control": "no-store", **headers}
    content = json.dumps({**body, **({"reason": problem.reason} if problem.reason else {})}).encode()
    encoded = [(name.lower().encode(), value.encode()) for name, value in raw.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": content})


def status_and_headers(problem: SessionApiError) -> tuple[int, dict[str, str]]:
    """Return how HTTP tells an error of a verifier: 401 with its challenge, or 503 with when to try again."""
    if isinstance(problem, AuthenticationError):
        return 401, {"WWW-Authenticate": bearer.challenge(problem)}
    return 503, {"Retry-After": str(problem.retry_after or 1)}
