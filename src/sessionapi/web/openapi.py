"""The OpenAPI document: every route's error answers, in their real media type, and one schema for them."""

from typing import Any

from sessionapi.web.problems import MEDIA_TYPE, STATUS

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
        "reason": {"type": "string", "description": "How the session ended."},
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
WRITES = (*BEARER, "rate_limited")
"""The refusals of a route that takes an access token and may change something."""
BODY = ("malformed_body", "payload_too_large", "unsupported_media_type", "validation_failed")
STORE = ("unavailable",)
BUSY = ("rate_limited", "overloaded")


def answers(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that may refuse with these codes, an example of each."""
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


def finish(document: dict[str, Any]) -> dict[str, Any]:
    """Add the schema that all error answers name, and drop FastAPI's own, which we never send."""
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas["Problem"] = PROBLEM_SCHEMA
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    return document
