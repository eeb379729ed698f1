"""JSON objects of users (session data, preferences and claims): merging by RFC 7396, and limits."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from sessionapi.errors import FieldError, ValidationFailed

MAX_OBJECT = 4096
"""Maximum size, in bytes of JSON, of a session's data, a user's preferences or a user's claims."""
MAX_DEPTH = 32


def merge(target: Mapping[str, Any], patch: Mapping[str, Any], depth: int = 1) -> dict[str, Any]:
    """Return a JSON object with another merged into it (RFC 7396).

    A null removes the field, objects are merged, and every other value replaces the old one.
    """
    if depth > MAX_DEPTH:
        raise _unkept(f"Objects can be nested at most {MAX_DEPTH} levels deep.")
    merged = dict(target)
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            inner = merged.get(name)
            merged[name] = merge(inner if isinstance(inner, Mapping) else {}, value, depth + 1)
        else:
            merged[name] = value
    return merged


def same_json(one: object, other: object) -> bool:
    """Return whether two JSON values are the same; in Python, `1 == True == 1.0`."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def bounded(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object that both engines can store and that is small enough, else raise ValidationFailed.

    The check uses the parser of the store, which accepts at most 200 nested lists. A row that cannot be
    parsed would break every query that returns it, including an administrator's list and the refreshes of
    other users.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
        from_json(text)
    except (ValueError, RecursionError):
        raise _unkept(
            "It contains a number or string that is not valid JSON, or it is nested too deep."
        ) from None
    if "\\u0000" in text:
        raise _unkept("It contains a NUL character, which cannot be stored. Remove it.")
    if size > MAX_OBJECT:
        raise _unkept(f"The whole object would have {size} bytes; the maximum is {MAX_OBJECT}.")
    return dict(value)


def _unkept(text: str) -> ValidationFailed:
    return ValidationFailed(text, [FieldError("data", "not_kept", text)])
