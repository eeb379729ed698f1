"""The outermost layer, in plain ASGI: request headers, security headers, the request log and metrics."""

import re
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sessionapi import ids, logging
from sessionapi.metrics import Metrics
from sessionapi.web.request_headers import RequestHeaders

log = structlog.get_logger()

API_CSP = b"default-src 'none'; frame-ancestors 'none'"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that are labels of a metric. Others are counted as `other`, because they must not add a series."""
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def security_headers(*, https: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of all responses that do not set them. HSTS is included only if `https` is set."""
    headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", API_CSP),
    ]
    if https:
        headers.append((b"strict-transport-security", b"max-age=63072000; includeSubDomains"))
    return headers


PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that monitoring systems request every few seconds. Successful responses are logged at debug level."""


class Edge:
    """The outermost ASGI middleware."""

    def __init__(
        self, app: ASGIApp, forwarded: ASGIApp, headers: RequestHeaders, metrics: Metrics, *, https: bool
    ) -> None:
        self._app = app
        self._forwarded = forwarded
        self._request_headers = headers
        self._metrics = metrics
        self._headers = security_headers(https=https)
        self._names = {name for name, _ in self._headers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. It runs in a separate task, so its request id is only in its log lines."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        sent = self._request_headers.read(scope)
        request_id = _request_id(sent.get(b"x-request-id", b""))
        scope["state"]["request_id"] = request_id
        logging.request_id.set(request_id)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(message, request_id)
            await send(message)

        is_forwarded = b"x-forwarded-for" in sent or b"x-forwarded-proto" in sent
        app = self._forwarded if is_forwarded else self._app
        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: the server still needs HEAD in its scope
            await app(scope, receive, without_body(send_with_headers))
        else:
            await app(scope, receive, send_with_headers)
        self._record(scope, method, status, time.perf_counter() - began)

    def _add_headers(self, message: Message, request_id: str) -> None:
        given = message["headers"]
        ours = self._headers
        names = {name for name, _ in given}
        if not names.isdisjoint(self._names):
            ours = [header for header in ours if header[0] not in names]
        message["headers"] = [*given, *ours, (b"x-request-id", request_id.encode())]

    def _record(self, scope: Scope, method: str, status: int, seconds: float) -> None:
        """Log and count one request, without its query string, which may hold personal data."""
        path = scope["path"]
        entry = {"method": method, "path": path, "status": status}
        if "code" in scope["state"]:
            entry["code"] = scope["state"]["code"]
        entry["ms"] = round(seconds * 1000, 1)
        entry["client"] = (scope.get("client") or ("unknown",))[0]
        write = log.debug if status == 200 and path in PROBES else log.info
        write("request", **entry)
        method = method if method in _METHODS else "other"
        route = scope.get("route_path") or getattr(scope.get("route"), "path", "none")
        self._metrics.count_request(method, str(route), status, seconds)


def without_body(send: Send) -> Send:
    """Return a `send` for the response to HEAD: the headers of the response to GET, and no content."""

    async def send_headers_only(message: Message) -> None:
        if message["type"] != "http.response.start":
            message = {
                "type": "http.response.body",
                "body": b"",
                "more_body": message.get("more_body", False),
            }
        await send(message)

    return send_headers_only


def _request_id(given: bytes) -> str:
    return given.decode() if given and _SANE_REQUEST_ID.fullmatch(given) else ids.new_request_id()
