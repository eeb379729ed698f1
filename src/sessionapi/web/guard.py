"""Early refusals: malformed headers, bodies that are too long, and cookies sent by a page of another origin.

The middleware is also the last line of defence: it logs an unexpected exception with its traceback and
returns a 500 without details. It is plain ASGI inside the CORS layer, so that a page of a listed origin can
read these responses too.
"""

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sessionapi.errors import CsrfRejected, PayloadTooLarge, SessionApiError
from sessionapi.web import problems
from sessionapi.web.dependencies import may_use_cookie

MAX_BODY = 64 * 1024
"""Bytes. A larger Content-Length is refused here, before the body is read. A body without one is refused
while it is read."""
_DIGITS = len(str(MAX_BODY))


class Guard:
    """ASGI middleware in front of the routes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused = refusal(scope)
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


def refusal(scope: Scope) -> SessionApiError | None:
    """Return the error of a request that is refused before its body is read, or else None."""
    state = scope["state"]
    if state["refused"]:
        refused: SessionApiError = state["refused"]
        return refused
    length = state["headers"].get(b"content-length", b"")
    if _is_too_long(length):
        return PayloadTooLarge()
    if scope["method"] != "POST" or not state["cookies"]:
        return None
    return None if may_use_cookie(Request(scope)) else CsrfRejected()


def _is_too_long(length: bytes) -> bool:
    """Return whether a Content-Length is over MAX_BODY. It may have more digits than `int` accepts."""
    if len(length) < _DIGITS:
        return False
    digits = length.lstrip(b"0")
    return digits.isdigit() and (len(digits) > _DIGITS or int(digits) > MAX_BODY)
