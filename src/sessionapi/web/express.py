"""A fast path for the two busiest routes: a dictionary finds them instead of the framework's router.

They are FastAPI routes too, which documents them and would return the same responses from the same functions.
These functions take the plain request and return the whole response, so they do not need the framework, which
took two thirds of the time of a request (measured).
"""

from collections.abc import Awaitable, Callable, Mapping

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from sessionapi.errors import SessionApiError
from sessionapi.web import guard, problems

Endpoint = Callable[[Request], Awaitable[Response]]


class Express:
    """ASGI middleware that finds fast routes by (method, path) and passes other requests to the framework."""

    def __init__(self, app: ASGIApp, stops: Mapping[tuple[str, str], ASGIApp]) -> None:
        self._app = app
        self._stops = stops

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        listed = scope["type"] == "http" and self._stops.get((scope["method"], scope["path"]))
        await (listed or self._app)(scope, receive, send)


class Stop:
    """One fast route. It makes the same checks as `Guard`, and returns errors as problem responses."""

    def __init__(self, path: str, endpoint: Endpoint) -> None:
        self._path = path
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["route_path"] = self._path
        answer = await self._answer(Request(scope, receive))
        await answer(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        try:
            refused = guard.refusal(request.scope)
            if refused is not None:
                return problems.response(refused, request)
            return await self._endpoint(request)
        except SessionApiError as problem:
            return await problems.on_error(request, problem)
        except RequestValidationError as problem:
            return await problems.on_validation_error(request, problem)
        except Exception as problem:
            return problems.unexpected(request, problem)
