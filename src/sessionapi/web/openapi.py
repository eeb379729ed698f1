"""The OpenAPI document, with the error responses of each route in their media type and with one schema."""

from typing import Any, get_args

from pydantic import BaseModel

from sessionapi.models import EndReason
from sessionapi.web.problems import MEDIA_TYPE, STATUS
from sessionapi.web.schemas import IntrospectIn, LogoutIn, RefreshIn

READ_BY_ROUTES: tuple[type[BaseModel], ...] = (RefreshIn, LogoutIn, IntrospectIn)
SESSION_COOKIE = "SessionCookie"

PROBLEM_SCHEMA: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457. `code` is stable; `detail` is for people.",
    "type": "object",
    "required": ["type", "title", "status", "detail", "code", "request_id"],
    "properties": {
        "type": {"type": "string", "format": "uri"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(STATUS)},
        "request_id": {"type": "string"},
        "reason": {
            "type": "string",
            "enum": sorted(get_args(EndReason)),
            "description": "How the session ended.",
        },
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "code", "message"],
                "properties": {
                    "field": {"type": "string"},
                    "code": {"type": "string"},
                    "message": {"type": "string"},
                },
            },
        },
    },
}
BEARER = (
    "missing_token",
    "malformed_authorization",
    "invalid_token",
    "expired_token",
    "session_revoked",
    "session_expired",
)
WRITES = (*BEARER, "csrf_rejected", "rate_limited")
"""Error codes of a route that takes an access token and may change something."""
BODY = ("malformed_body", "payload_too_large", "unsupported_media_type", "validation_failed")
STORE = ("unavailable",)
BUSY = ("rate_limited", "overloaded")


def answers(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that may return these error codes, with an example of each."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in (*codes, "internal_error"):
        status, title = STATUS[code]
        entry = found.setdefault(status, {"description": "", "content": {MEDIA_TYPE: _content()}})
        entry["description"] = " · ".join(filter(None, [entry["description"], f"`{code}`"]))
        entry["content"][MEDIA_TYPE]["examples"][code] = {"value": _example(code, status, title)}
    return found


def _content() -> dict[str, Any]:
    return {"schema": {"$ref": "#/components/schemas/Problem"}, "examples": {}}


def _example(code: str, status: int, title: str) -> dict[str, Any]:
    return {
        "type": f"http://localhost:8000/errors/{code}",
        "title": title,
        "status": status,
        "detail": "What happened, and what to do.",
        "code": code,
        "request_id": "019a8f7e5c6b7d3e8f901a2b3c4d5e6f",
    }


def body(
    model: type[BaseModel], media_type: str = "application/json", *, required: bool = False
) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that reads its body itself; `finish` adds the model's schema."""
    content = {media_type: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}
    return {"requestBody": {"content": content, "required": required}}


def finish(document: dict[str, Any], session_cookie: str) -> dict[str, Any]:
    """Add what the framework leaves out: problems, bodies that routes read themselves, and the cookie.

    The framework's error schemas are removed, because the service never sends such errors.
    """
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for model in READ_BY_ROUTES:
        schemas[model.__name__] = model.model_json_schema()
    schemas["Problem"] = PROBLEM_SCHEMA
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    components["securitySchemes"][SESSION_COOKIE] = {
        "type": "apiKey",
        "in": "cookie",
        "name": session_cookie,
        "description": "The refresh token of a login with the cookie transport; browsers send it.",
    }
    return document
