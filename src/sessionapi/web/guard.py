"""What is refused before anything is read or asked: bodies that are too long, browsers from elsewhere.

It also is the last net: whatever nobody expected becomes a 500 without a trace, and a log line with it. In
plain ASGI, inside of CORS, so that a page of a listed origin can read these answers too.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sessionapi.errors import CsrfRejected, PayloadTooLarge, SessionApiError
from sessionapi.settings import Settings
from sessionapi.web import cookies, problems
from sessionapi.web.deps import may_use_cookie

MAX_BODY = 64 * 1024
"""Bytes. A larger declared length is refused here, unread; a body without one by the router, on the way."""


class Guard:
    """ASGI middleware in front of the routes."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = refusal(scope, self._settings)
        if refused is not None:
            await problems.response(refused, Request(scope))(scope, receive, send)
            return
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except Exception as problem:
            answer = problems.unexpected(Request(scope), problem)
            if not started:
                await answer(scope, receive, send)


def refusal(scope: Scope, settings: Settings) -> SessionApiError | None:
    """Return why a request is refused before anything of it is read, if it is."""
    names = dict(scope["headers"])
    length = names.get(b"content-length", b"0")
    if length.isdigit() and int(length) > MAX_BODY:
        return PayloadTooLarge()
    if scope["method"] != "POST" or b"cookie" not in names:
        return None
    request = Request(scope)
    with_cookie = cookies.any_of_ours(request, settings)
    return CsrfRejected() if with_cookie and not may_use_cookie(request) else None
