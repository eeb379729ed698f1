"""The header fields of a request, read once in the outermost layer by the rules of RFC 9110 and RFC 9112.

The rules apply under any ASGI server. A request that repeats a field that may occur only once is malformed.
The values of any other repeated field are joined in order (RFC 9110 section 5.3). Only our own cookies are
passed on, because before Python 3.11.10 the framework's parser takes quadratic time for a quoted cookie
(CVE-2024-7592), 10 s for 64 KB (measured).
"""

import re
from collections.abc import Collection, Iterable

from starlette.requests import Request
from starlette.types import Scope

from sessionapi.errors import MalformedAuthorization, MalformedRequest, SessionApiError

Fields = dict[bytes, bytes]
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 section 9.2.1), without TRACE, which no route accepts."""

SINGLE = {
    each.lower().encode(): each
    for each in ("Host", "Content-Length", "Content-Type", "Origin", "Sec-Fetch-Site", "Idempotency-Key")
}
"""Fields that must not be repeated. A repeated `Authorization` is refused too, with a different code."""
MAX_FIELDS = 200
"""Maximum number of fields of a request; browsers send 20. A field of four bytes takes 150 bytes of memory,
and the framework took 40 ms for 8,000 (measured)."""
MAX_QUERY = 8 * 1024
"""Maximum bytes of a query string. The longest valid value is a `next` of 2,000 characters; 60 KB took 40 ms
(measured)."""
MAX_COOKIE = 4096
"""Maximum bytes of a cookie value that is passed on, which is the limit of browsers. Ours are under 200."""
_HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
"""RFC 3986 `host [":" port]`, without a comma, which only a joined field contains."""
_WITHOUT_HOST = ("1.0", "1", "0.9")
"""Versions of HTTP in which Host may be missing. Granian uses `1` for `1.0`, with an empty Host."""


class RequestHeaders:
    """Reader that puts `headers`, `cookies` and `malformed` of each request into `scope["state"]`."""

    def __init__(self, own_cookies: Collection[str]) -> None:
        names = b"|".join(re.escape(name.encode()) for name in own_cookies)
        self._own_cookie = re.compile(rb"(?:^|;)[ \t]*(%s)[ \t]*=([^;]*)" % names)

    def read(self, scope: Scope) -> Fields:
        """Return the fields by lower-case name, and leave one field of each name in the scope."""
        headers = scope["headers"]
        fields = dict(headers)
        refused = None
        as_they_came = len(fields) == len(headers) and b"cookie" not in fields
        if len(fields) != len(headers):
            fields, refused = _joined(headers)
        state = scope.setdefault("state", {})
        state["headers"] = fields
        state["cookies"] = {}
        if b"cookie" in fields:
            refused = self._keep_own_cookies(fields, state["cookies"]) or refused
        state["malformed"] = (
            refused or _wrong_host(fields, scope) or _wrong_coding(fields) or _too_much(scope)
        )
        if not as_they_came:
            scope["headers"] = list(fields.items())
        return fields

    def _keep_own_cookies(self, fields: Fields, cookies: dict[str, str]) -> SessionApiError | None:
        """Reduce the Cookie field to our cookies. If two have one name, drop all and return a refusal.

        Only spaces and tabs are stripped (RFC 6265 section 4.2.1), so that no other name becomes ours.
        """
        pairs = [
            (name.decode(), value.strip(b" \t"))
            for name, value in self._own_cookie.findall(fields[b"cookie"])
        ]
        names = [name for name, _ in pairs]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice:
            pairs = []
        kept = [(name, value) for name, value in pairs if len(value) <= MAX_COOKIE]
        cookies.update((name, value.decode("latin-1")) for name, value in kept)
        del fields[b"cookie"]
        if kept:
            fields[b"cookie"] = b"; ".join(b"%s=%s" % (name.encode(), value) for name, value in kept)
        return MalformedRequest(f"The request has more than one cookie {twice}.") if twice else None


def header(request: Request, name: bytes) -> str | None:
    """Return the value of the field with this lower-case name, or None."""
    value: bytes | None = request.scope["state"]["headers"].get(name)
    return None if value is None else value.decode("latin-1")


def media_type(request: Request) -> str:
    """Return the media type in Content-Type, in lower case and without parameters."""
    return (header(request, b"content-type") or "").partition(";")[0].strip(" \t").lower()


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> tuple[Fields, SessionApiError | None]:
    """Join repeated fields. Also return a refusal if one of them must not be repeated."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    twice = {name for name, found in values.items() if len(found) > 1}
    fields = {name: (b"; " if name == b"cookie" else b", ").join(found) for name, found in values.items()}
    for name in twice & SINGLE.keys():
        return fields, MalformedRequest(f"The request has more than one {SINGLE[name]} header.")
    return fields, MalformedAuthorization() if b"authorization" in twice else None


def _wrong_host(fields: Fields, scope: Scope) -> SessionApiError | None:
    """Return the refusal that RFC 9112 section 3.2 requires for a missing or invalid Host."""
    host = fields.get(b"host")
    if not host:
        missing = scope.get("http_version", "1.1") not in _WITHOUT_HOST
        return MalformedRequest("The request has no Host header.") if missing else None
    return None if _HOST.fullmatch(host) else MalformedRequest("The Host header is not a host.")


def _wrong_coding(fields: Fields) -> SessionApiError | None:
    """Return the refusal of a coding other than chunked, or of one with a length (RFC 9112 section 6.1)."""
    coding = fields.get(b"transfer-encoding")
    if coding is None or (coding.lower() == b"chunked" and b"content-length" not in fields):
        return None
    return MalformedRequest("The body has another transfer coding than chunked, or a length too.")


def _too_much(scope: Scope) -> SessionApiError | None:
    """Return the refusal of a request that would take the framework too long to parse."""
    if not scope["query_string"].isascii():
        return MalformedRequest("The query string has bytes that a URL cannot contain.")
    if len(scope["query_string"]) > MAX_QUERY:
        return MalformedRequest(f"The query string has more than {MAX_QUERY} bytes.")
    if len(scope["headers"]) > MAX_FIELDS:
        return MalformedRequest(f"The request has more than {MAX_FIELDS} headers.")
    return None
