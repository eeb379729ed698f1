"""ASGI middleware that refuses requests without a valid access token, for any framework."""

import json
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

from sessionapi.errors import AuthenticationError, SessionApiError
from sessionapi.tokens import bearer
from sessionapi.verifier.client import AsyncVerifier

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

POLICY_VIOLATION = 1008
"""The close code of a refused WebSocket (RFC 6455, 7.4.1)."""


class Protect:
    """Protects all paths of an app except those in `public`, which must match exactly.

    The claims of the token are in `scope["state"]["claims"]`. A WebSocket without a valid token is refused
    before it is accepted, with an HTTP response if the server can send one (`websocket.http.response`), or
    else with close code 1008. Other types of scope, such as `lifespan`, pass through.
    """

    def __init__(self, app: App, verifier: AsyncVerifier, public: Collection[str] = ()) -> None:
        self._app = app
        self._verifier = verifier
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        try:
            claims = await self._verifier.verify(bearer.read(scope["headers"]))
        except SessionApiError as problem:
            await _refuse(problem, scope, send)
            return
        scope.setdefault("state", {})["claims"] = claims
        await self._app(scope, receive, send)


def can_be_denied(scope: Scope) -> bool:
    """Return whether the server can reject a WebSocket with an HTTP response (an extension of ASGI)."""
    return "websocket.http.response" in (scope.get("extensions") or {})


async def _refuse(problem: SessionApiError, scope: Scope, send: Send) -> None:
    prefix = ""
    if scope["type"] == "websocket":
        if not can_be_denied(scope):
            await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": problem.code})
            return
        prefix = "websocket."
    status, headers = status_and_headers(problem)
    body = {"type": "about:blank", "status": status, "detail": problem.detail, "code": problem.code}
    raw = {"content-type": "application/problem+json", "cache-control": "no-store", **headers}
    content = json.dumps({**body, **({"reason": problem.reason} if problem.reason else {})}).encode()
    encoded = [(name.lower().encode(), value.encode()) for name, value in raw.items()]
    await send({"type": f"{prefix}http.response.start", "status": status, "headers": encoded})
    await send({"type": f"{prefix}http.response.body", "body": content})


def status_and_headers(problem: SessionApiError) -> tuple[int, dict[str, str]]:
    """Return the HTTP status and headers of an error: 401 with a challenge, or 503 with `Retry-After`."""
    if isinstance(problem, AuthenticationError):
        return 401, {"WWW-Authenticate": bearer.challenge(problem)}
    return 503, {"Retry-After": str(problem.retry_after or 1)}
