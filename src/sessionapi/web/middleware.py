"""Middleware around the routes, in plain ASGI. A request passes through these layers, from the outside in:

1. `RequestContext` reads the header fields, gives the request an id, adds the headers of every response, and
   logs and counts the request.
2. `ForwardedClient` takes the client's address from a trusted proxy.
3. CORS (cors.py) lets pages of listed origins read the response, even if it is a refusal.
4. `ErrorBoundary` refuses requests that must not reach a route, and turns an unexpected exception into a 500.
"""

import re
import time
from collections.abc import Collection, Sequence

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from sessionapi import ids, logging, origins
from sessionapi.container import Container
from sessionapi.errors import CsrfRejected, PayloadTooLarge, SessionApiError
from sessionapi.metrics import Metrics
from sessionapi.settings import Settings
from sessionapi.throttling import limits
from sessionapi.web import cookies, cors, problems
from sessionapi.web.json_io import MAX_BODY
from sessionapi.web.request_headers import SAFE_METHODS, Fields, RequestHeaders
from sessionapi.web.security_headers import response_headers

log = structlog.get_logger()

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that monitoring systems request every few seconds. Successful responses are logged at debug level."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Methods that become labels of a metric. Others count as `other`, so that a client cannot add a series."""
_SANE_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_LENGTH_DIGITS = len(str(MAX_BODY))


def surround(routes: ASGIApp, container: Container, public_paths: Collection[str]) -> ASGIApp:
    """Return the whole app: the routes inside all layers. Pages of all origins may read the public paths."""
    settings = container.settings
    app: ASGIApp = ErrorBoundary(routes, settings)
    app = cors.surround(app, settings.allowed_origins, public_paths)
    app = ForwardedClient(app, settings.trusted_proxies)
    https = settings.public_url.startswith("https:")
    return RequestContext(app, RequestHeaders(cookies.names(settings)), container.metrics, https=https)


class RequestContext:
    """The outermost layer. It reads the headers of a request, and sees every response."""

    def __init__(self, app: ASGIApp, headers: RequestHeaders, metrics: Metrics, *, https: bool) -> None:
        self._app = app
        self._request_headers = headers
        self._metrics = metrics
        self._headers = response_headers(https=https)
        self._names = {name for name, _ in self._headers}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. It runs in a separate task, so its request id is only in its log lines."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        request_id = _request_id(self._request_headers.read(scope))
        scope["state"].update(request_id=request_id, response_started=False)
        logging.request_id.set(request_id)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                scope["state"]["response_started"] = True
                self._add_headers(message, request_id)
            await send(message)

        method = scope["method"]
        if method == "HEAD":
            scope = {**scope, "method": "GET"}  # a copy: the server still needs HEAD in its scope
            await self._app(scope, receive, without_body(send_with_headers))
        else:
            await self._app(scope, receive, send_with_headers)
        self._record(scope, method, status, time.perf_counter() - began)

    def _add_headers(self, message: Message, request_id: str) -> None:
        """Add the headers of every response, except those that the route has set."""
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
        self._metrics.count_request(method, getattr(scope.get("route"), "path", "none"), status, seconds)


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


def _request_id(fields: Fields) -> str:
    given = fields.get(b"x-request-id", b"")
    return given.decode() if given and _SANE_REQUEST_ID.fullmatch(given) else ids.new_request_id()


class ForwardedClient:
    """The layer that sets the scope's client to the one behind trusted proxies.

    uvicorn's middleware takes the rightmost address of `X-Forwarded-For` that isn't a trusted proxy's, and
    only if the connection comes from a trusted proxy. What a client writes into the header is to the left of
    that address, so it is ignored. Here, inside the app, TRUSTED_PROXIES works under any server.
    """

    def __init__(self, app: ASGIApp, trusted_proxies: Sequence[str]) -> None:
        self._app = app
        self._forwarded: ASGIApp = self._with_warning
        if trusted_proxies:
            peers = limits.trusted_peers(trusted_proxies)
            self._forwarded = ProxyHeadersMiddleware(self._with_warning, peers)  # type: ignore[arg-type, assignment]
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        fields = scope["state"]["headers"] if scope["type"] == "http" else {}
        is_forwarded = b"x-forwarded-for" in fields or b"x-forwarded-proto" in fields
        await (self._forwarded if is_forwarded else self._app)(scope, receive, send)

    async def _with_warning(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Warn once if a proxy isn't trusted, because all of its clients are throttled as one.

        If the header contains the client's address, it was taken from there, so the proxy is trusted.
        """
        forwarded = scope["state"]["headers"].get(b"x-forwarded-for")
        peer = (scope.get("client") or ("unknown",))[0]
        if forwarded and not self._warned and peer not in forwarded.decode("latin-1"):
            self._warned = True
            log.warning("X-Forwarded-For from an address that isn't in TRUSTED_PROXIES is ignored", peer=peer)
        await self._app(scope, receive, send)


class ErrorBoundary:
    """The innermost layer. It returns errors as problems, which pages of listed origins can read.

    It refuses malformed headers, bodies that are too long, and cross-origin requests. It is also the last
    line of defence: it logs an unexpected exception with its traceback, and returns a 500 without details.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it before its body is read."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await problems.response(refusal, Request(scope))(scope, receive, send)
            return
        root_path = scope.get("root_path", "")
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            scope["root_path"] = root_path  # a folder of static files has changed it
            response = await problems.of(error, Request(scope))
            if not scope["state"]["response_started"]:
                await response(scope, receive, send)

    def _refusal(self, scope: Scope) -> SessionApiError | None:
        malformed: SessionApiError | None = scope["state"]["malformed"]
        fields = scope["state"]["headers"]
        if malformed is not None:
            return malformed
        if is_too_long(fields.get(b"content-length", b"")):
            return PayloadTooLarge()
        if scope["method"] not in SAFE_METHODS and is_cross_origin(fields, self._settings):
            return CsrfRejected()
        return None


def is_too_long(length: bytes) -> bool:
    """Return whether a Content-Length is over MAX_BODY. It may have more digits than `int` accepts."""
    if len(length) < _LENGTH_DIGITS:
        return False
    digits = length.lstrip(b"0")
    return digits.isdigit() and (len(digits) > _LENGTH_DIGITS or int(digits) > MAX_BODY)


def is_cross_origin(fields: Fields, settings: Settings) -> bool:
    """Return whether a request comes from a page of another origin (design 5).

    Like Go's `http.CrossOriginProtection`, the rule is for all methods that may change something, and needs
    no knowledge of cookies. It is stricter, because every `Origin` must be in the settings. `Origin` decides
    if it is sent. Without it, `Sec-Fetch-Site` must be `same-origin`. A request with neither header does not
    come from a browser.

    The origin of PUBLIC_URL and those in ALLOWED_ORIGINS are ours. Host is not used, because a proxy or an
    attacker's DNS may have changed it. The exception is an http PUBLIC_URL with a loopback name. Then a
    loopback name in Host is trusted, with any port.
    """
    sent = fields.get(b"origin")
    if sent is None:
        return fields.get(b"sec-fetch-site", b"same-origin") != b"same-origin"
    origin = sent.decode("latin-1")
    if origin in settings.own_origins:
        return False
    host = fields.get(b"host", b"").decode("latin-1")
    return not (settings.on_loopback and origin == origins.loopback_origin(host))
