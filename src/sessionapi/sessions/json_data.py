"""JSON objects that users keep: the data of a session, and preferences. Merged by RFC 7396, and bounded."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json

from sessionapi.errors import FieldError, ValidationFailed

MAX_OBJECT = 4096
"""Bytes of JSON that a session's data or a user's preferences may have."""
MAX_DEPTH = 32


def merge(target: Mapping[str, Any], patch: Mapping[str, Any], depth: int = 1) -> dict[str, Any]:
    """Return a JSON object with another merged into it (RFC 7396).

    A null removes, objects are merged, everything else replaces.
    """
    if depth > MAX_DEPTH:
        raise _unkept(f"Objects may be nested {MAX_DEPTH} deep at most.")
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
    """Return whether two JSON values are the same; for Python `1 == True == 1.0`."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def bounded(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON object that both engines can keep and that is small enough, else ValidationFailed.

    It is read as the store will read it, which takes 200 lists in each other: a row that can't be read would
    fail all that ask for it, an administrator's list and the refreshes of others among them.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
        from_json(text)
    except (ValueError, RecursionError):
        raise _unkept("A number or a text in it is not valid JSON, or it is nested too deep.") from None
    if "\\u0000" in text:
        raise _unkept("A text in it holds a NUL.")
    if size > MAX_OBJECT:
        raise _unkept(f"The whole object would have {size} bytes; at most {MAX_OBJECT} are kept.")
    return dict(value)


def _unkept(text: str) -> ValidationFailed:
    return ValidationFailed(text, [FieldError("data", "not_kept", text)])
