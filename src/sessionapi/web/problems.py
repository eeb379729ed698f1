"""Errors as RFC 9457 `application/problem+json`. One table maps each code to its status."""

from collections.abc import Mapping
from typing import Any

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Mount

from sessionapi.errors import (
    AuthenticationError,
    FieldError,
    InternalError,
    MalformedBody,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    RateLimited,
    SessionApiError,
    Unavailable,
    ValidationFailed,
)
from sessionapi.tokens import bearer
from sessionapi.web.dependencies import app_of, client_of

log = structlog.get_logger()

MAX_ERRORS = 10
"""Maximum number of field errors in a response. The rest are only counted, because 64 KB of unknown fields
caused a response of 682 KB."""
MAX_FIELD_NAME = 100
"""Maximum number of characters of a field name in an error. Our field names have at most 30."""
MEDIA_TYPE = "application/problem+json"
STATUS: Mapping[str, tuple[int, str]] = {
    "missing_token": (401, "Access token missing"),
    "malformed_authorization": (401, "Authorization header malformed"),
    "invalid_token": (401, "Access token invalid"),
    "expired_token": (401, "Access token expired"),
    "session_revoked": (401, "Session revoked"),
    "session_expired": (401, "Session expired"),
    "invalid_refresh_token": (401, "Refresh token invalid"),
    "refresh_token_reused": (401, "Refresh token reused"),
    "invalid_credentials": (401, "Credentials invalid"),
    "csrf_rejected": (403, "Origin not allowed"),
    "forbidden": (403, "Forbidden"),
    "reauthentication_required": (403, "Recent login required"),
    "signup_closed": (403, "Sign-up closed"),
    "malformed_body": (400, "Body malformed"),
    "malformed_request": (400, "Request malformed"),
    "request_timed_out": (408, "Request timed out"),
    "not_found": (404, "Not found"),
    "method_not_allowed": (405, "Method not allowed"),
    "username_taken": (409, "Username taken"),
    "conflict": (409, "Conflict"),
    "payload_too_large": (413, "Body too large"),
    "unsupported_media_type": (415, "Content type not supported"),
    "validation_failed": (422, "Input invalid"),
    "weak_password": (422, "Password too weak"),
    "rate_limited": (429, "Too many attempts"),
    "internal_error": (500, "Internal error"),
    "overloaded": (503, "Overloaded"),
    "unavailable": (503, "Database unavailable"),
}


def response(error: SessionApiError, request: Request) -> JSONResponse:
    """Return the problem response for an error."""
    public_url = app_of(request).settings.public_url
    body = members(error, public_url, request.scope["state"]["request_id"])
    status = body["status"]
    request.scope["state"]["code"] = error.code
    return JSONResponse(body, status, headers=_headers(error, request), media_type=MEDIA_TYPE)


def members(error: SessionApiError, public_url: str, request_id: str) -> dict[str, Any]:
    """Return the fields of the problem that describes an error."""
    status, title = STATUS[error.code]
    body: dict[str, Any] = {
        "type": f"{public_url}/errors/{error.code}",
        "title": title,
        "status": status,
        "detail": error.detail,
        "code": error.code,
        "request_id": request_id,
    }
    if error.reason:
        body["reason"] = error.reason
    if error.field_errors:
        body["errors"] = [
            {"field": item.field, "code": item.code, "message": item.message} for item in error.field_errors
        ]
    return body


def _headers(error: SessionApiError, request: Request) -> dict[str, str]:
    headers: dict[str, str] = {}
    if isinstance(error, AuthenticationError):
        presented = b"authorization" in request.scope["state"]["headers"]
        headers["WWW-Authenticate"] = bearer.challenge(error, presented=presented)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, RateLimited):
        headers |= _limit_headers(error)
    return headers


def _limit_headers(error: RateLimited) -> dict[str, str]:
    """Return the headers with the limit and its reset time (draft-ietf-httpapi-ratelimit-headers)."""
    return {
        "RateLimit-Policy": f'"{error.policy}";q={error.quota};w={error.window}',
        "RateLimit": f'"{error.policy}";r={error.remaining};t={error.retry_after}',
    }


async def of(error: Exception, request: Request) -> Response:
    """Return the response for an exception that a route has raised."""
    if isinstance(error, SessionApiError):
        return await _of_ours(error, request)
    if isinstance(error, RequestValidationError):
        return _of_invalid_input(error, request)
    if isinstance(error, HTTPException):
        return _of_framework(error, request)
    log.error("unexpected error", path=request.scope["path"], exc_info=error)
    return response(InternalError(), request)


async def _of_ours(error: SessionApiError, request: Request) -> JSONResponse:
    """Return the response for an error of our tree. The database's message is only logged."""
    if isinstance(error, Unavailable) and error.cause:  # without one it was refused at once
        log.error("database unavailable", error=error.cause)
    if isinstance(error, RateLimited):
        await app_of(request).throttle.slow_down(client_of(request))
    return response(error, request)


def _of_invalid_input(error: RequestValidationError, request: Request) -> JSONResponse:
    """Return the response for invalid input, without the input, because it may be a password."""
    errors = error.errors()
    count = len(errors) + request.scope["state"].get("surplus", 0)
    many = count > MAX_ERRORS
    detail = f"{count} fields are missing or invalid; errors has the first {MAX_ERRORS}." if many else None
    listed = [_field_error(error) for error in errors[:MAX_ERRORS]]
    return response(ValidationFailed(detail, listed), request)


def _of_framework(error: HTTPException, request: Request) -> Response:
    """Return the response for an error of the framework, as a problem with the framework's headers.

    Every route refuses OPTIONS with 405. Here that becomes a 204 with the `Allow` header of the path.
    """
    by_status = {400: MalformedBody, 404: NotFound, 405: MethodNotAllowed, 413: PayloadTooLarge}
    status = error.status_code
    if status == 405 and request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": _allow(request)})
    if status not in by_status:
        log.error("unexpected error of the framework", path=request.scope["path"], exc_info=error)
        return response(InternalError(), request)
    answer = response(by_status[status](), request)
    answer.headers.update(error.headers or {})
    if status == 405:
        answer.headers["Allow"] = _allow(request)
    return answer


def _allow(request: Request) -> str:
    """Return the `Allow` header with all methods of a path. The framework lists only those of one route.

    HEAD works wherever GET does, and OPTIONS everywhere.
    """
    methods = _routed(request)
    derived = ["HEAD"] if "GET" in methods else []
    order = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return ", ".join(each for each in order if each in {*methods, *derived, "OPTIONS"})


def _routed(request: Request) -> set[str]:
    """Return the methods that the routes of a path accept.

    A route with an id in its path does not count for a fixed path that it also matches (/sessions/current).
    A folder of static files matches every method, but accepts only GET.
    """
    scope = request.scope
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    documented = request.app.openapi()["paths"].get(path)
    if documented:
        return {method.upper() for method in documented}
    scopes = ({**scope, "method": method} for method in ("GET", "POST", "PUT", "PATCH", "DELETE"))
    return {
        scope["method"]
        for scope in scopes
        for route in request.app.routes
        if route.matches(scope)[0] is Match.FULL
        and (scope["method"] == "GET" or not isinstance(route, Mount))
    }


def _field_error(error: Mapping[str, Any]) -> FieldError:
    path = ".".join(str(part) for part in error["loc"][1:]) or str(error["loc"][0])
    if len(path) > MAX_FIELD_NAME:
        path = f"{path[:MAX_FIELD_NAME]}..."
    return FieldError(path, error["type"], error["msg"])
