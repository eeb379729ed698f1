"""The outermost layer, in plain ASGI: request id, security headers, one log line and the counters."""

import re
import time

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sessionapi import ids, logs
from sessionapi.metrics import Metrics
from sessionapi.web.proxies import ProxyWarning

log = structlog.get_logger()

API_CSP = b"default-src 'none'; frame-ancestors 'none'"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Labels of a metric are closed: a stranger's method must not make a series of its own."""
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def security_headers(*, https: bool) -> list[tuple[bytes, bytes]]:
    """Return the headers of every answer that doesn't say otherwise; HSTS only where the address is https."""
    headers = [
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"content-security-policy", API_CSP),
    ]
    if https:
        headers.append((b"strict-transport-security", b"max-age=63072000; includeSubDomains"))
    return headers


class Edge:
    """ASGI middleware around everything."""

    def __init__(self, app: ASGIApp, metrics: Metrics, *, https: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._headers = security_headers(https=https)
        self._proxy_warning = ProxyWarning()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. It is a task of its own, so what is bound to its log lines ends with it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        sent = dict(scope["headers"])
        if b"x-forwarded-for" in sent:
            self._proxy_warning.look(scope)
        request_id = _request_id(sent.get(b"x-request-id", b""))
        scope.setdefault("state", {})["request_id"] = request_id
        logs.request_id.set(request_id)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(message, request_id)
            await send(message)

        await self._app(scope, receive, send_with_headers)
        self._tell(scope, status, time.perf_counter() - began)

    def _add_headers(self, message: Message, request_id: str) -> None:
        given = message["headers"]
        said = {name for name, _ in given}
        ours = [header for header in self._headers if header[0] not in said]
        message["headers"] = [*given, *ours, (b"x-request-id", request_id.encode())]

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        """Log and count; the query string stays out, for it may hold what is nobody's business."""
        log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            ms=round(seconds * 1000, 1),
            client=(scope.get("client") or ("unknown",))[0],
        )
        method = scope["method"] if scope["method"] in _METHODS else "other"
        route = scope.get("route_path") or getattr(scope.get("route"), "path", "none")
        self._metrics.count_request(method, str(route), status, seconds)


def _request_id(given: bytes) -> str:
    return given.decode() if given and _SANE_REQUEST_ID.fullmatch(given) else ids.new_id().hex
