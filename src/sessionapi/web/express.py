"""The two routes that are nearly all requests of a day, found by one look-up instead of by the router.

FastAPI documents them as it does all others, and would answer the same by the same functions: they take the
plain request and return the whole response, so nothing is left for its machinery to do (measured here: it
took two thirds of the time of a request).
"""

from collections.abc import Awaitable, Callable, Mapping

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sessionapi.errors import SessionApiError
from sessionapi.web import problems

Endpoint = Callable[[Request], Awaitable[Response]]


class Express:
    """ASGI middleware in front of the router, by (method, path); what isn't listed goes on to it."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[tuple[str, str], Endpoint]) -> None:
        self._app = app
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        endpoint = self._endpoints.get((scope.get("method", ""), scope["path"])) if "path" in scope else None
        if endpoint is None:
            await self._app(scope, receive, send)
            return
        scope["route_path"] = scope["path"]
        request = Request(scope, receive)
        try:
            answer = await endpoint(request)
        except SessionApiError as problem:
            answer = await problems.on_error(request, problem)
        except RequestValidationError as problem:
            answer = await problems.on_validation_error(request, problem)
        await answer(scope, receive, send)
