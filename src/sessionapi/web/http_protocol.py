"""HTTP/1.1 with strict message boundaries, so that each request is exactly one message."""

import asyncio
from typing import Any
from urllib.parse import unquote

import httptools
import structlog
from pydantic_core import to_json
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from sessionapi import ids
from sessionapi.errors import MalformedRequest, Overloaded, RequestTimedOut, SessionApiError
from sessionapi.web import problems
from sessionapi.web.connection_limits import STATE, Connections, Waiting
from sessionapi.web.request_headers import MAX_FIELDS
from sessionapi.web.security_headers import response_headers

log = structlog.get_logger()

MAX_HEAD = 64 * 1024
"""Maximum bytes of a request line with its header fields, eight times what browsers and proxies send."""
MAX_OVERHEAD = 64 * 1024
"""Maximum bytes of a chunked body that are not data: chunk sizes, extensions and trailers."""
FREE_OVERHEAD = 16
"""Bytes of a chunk that are not counted as overhead."""
MAX_PIECE = 16 * 1024
"""Maximum bytes parsed between two checks. 256 KiB of headers took 30 ms before they were refused."""
MAX_QUEUED = 8
"""Maximum number of requests of a connection that wait for an earlier response. Browsers and proxies do not
send such requests."""
MAX_DROPPED = 2 * 1024 * 1024
"""Maximum bytes that are dropped after a refusal, because a client may send everything before it reads."""
CHUNKED = b"transfer-encoding: chunked\r\n"


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's connection with stricter rules.

    - Every upgrade is ignored (RFC 9110 section 7.8). The body is read by its length or its chunks, as it
      would be without the upgrade. CONNECT is refused.
    - Trailer fields are dropped, and do not change the request (RFC 9110 section 6.5.1).
    - The head has at most MAX_HEAD bytes and MAX_FIELDS fields, a chunked body at most MAX_OVERHEAD bytes
      that are not data, and at most MAX_QUEUED requests wait for earlier ones.
    - HTTP/1.1 has exactly one Host, HTTP/1.0 at most one, and other versions are refused. The only transfer
      coding is `chunked`, and not in HTTP/1.0 (RFC 9112 sections 3.2 and 6.1). The target is a path, or a
      URL with the same host as Host.
    - A request that breaks a rule is refused with a problem, after the responses to earlier requests. Then
      the connection is closed, and nothing that follows is read.
    - `Connections` refuses or closes slow clients. Idle connections are kept longer than load balancers
      keep theirs.
    """

    cycle: RequestResponseCycle | None  # type: ignore[assignment]

    address = ""
    waiting: Waiting | None = Waiting.FOR_HEAD
    since = 0.0
    """When the current wait began, by the clock of the event loop."""
    stalled_since = 0.0
    """When the client stopped reading its response."""
    _wait = _timed_wait = 0
    """Numbers of the current wait and of the one that `since` belongs to, so that a packet reads the clock
    only once."""
    _packet = 0
    """Size of the piece of data that is being parsed."""
    _overhead = 0
    """Bytes of the current head or body that are not data, except any that came with an earlier message."""
    _uncounted = 0
    """Size of the piece of data in which the current head began, which `_overhead` may not include."""
    _framing = b""
    """The header field that determines the end of the current body, or empty without a body."""
    _restating = False
    _ended = False
    """Whether the last message of this connection has been read, or refused."""
    _refusal: SessionApiError | None = None

    def connection_made(self, transport: Any) -> None:
        """Take a place among the `Connections`, or refuse the connection."""
        super().connection_made(transport)
        self._places: Connections = self.app_state[STATE]
        self.headers = []
        self.since = self.loop.time()
        if not self._places.admit(self):
            self._ended = True
            self._write_problem(Overloaded("Too many connections. Try again shortly."))
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Free the place."""
        self._places.remove(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse the data, or refuse the request."""
        if self._ended:
            self._drop(data)
            return
        if len(data) > MAX_PIECE:
            for start in range(0, len(data), MAX_PIECE):
                self.data_received(data[start : start + MAX_PIECE])
            return
        self._packet = len(data)
        self._overhead += self._packet
        upgraded_at = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            upgraded_at = upgrade.args[0]
        except httptools.HttpParserError as problem:
            self._refuse(_reason(problem))
        if upgraded_at is not None:  # outside the handler: a later error must not have this context
            self._ignore_upgrade(data[upgraded_at:])
        if self.waiting is not None:
            self._check_wait()

    def _check_wait(self) -> None:
        """Start the deadline of a new wait, or refuse a head or body with too much overhead."""
        if not self._ended and (self._overhead > MAX_OVERHEAD or len(self.headers) > MAX_FIELDS):
            self._refuse(MalformedRequest("The request has too many headers, or its body too many chunks."))
        elif self._wait != self._timed_wait:
            self._timed_wait = self._wait
            self.since = self.loop.time()

    def _drop(self, data: bytes) -> None:
        """Drop what follows the last message, so that the client can read its response."""
        self._overhead += len(data)
        if self.waiting is not Waiting.TO_CLOSE:
            self.flow.pause_reading()
        elif self._overhead > MAX_DROPPED:
            self.transport.abort()

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Continue after the head, where the parser expects another protocol and has skipped the body.

        A new parser gets a second head with the framing of the message, which is the length or the chunked
        coding. So the same code reads the body and everything after it, as it would without the upgrade.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        if self._framing:
            self._restating = True
            persistence = b"" if self.cycle and self.cycle.keep_alive else b"connection: close\r\n"
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + self._framing + persistence + b"\r\n")
        if rest:
            self.data_received(rest)

    def on_message_begin(self) -> None:
        """Begin a head."""
        super().on_message_begin()
        self._uncounted = self._packet
        self.waiting = Waiting.FOR_HEAD
        self._wait += 1

    def on_headers_complete(self) -> None:
        """Start the request if its head obeys the rules."""
        if self._restating:
            self._restating = False
        else:
            version = self.parser.get_http_version()
            method = self.parser.get_method()
            self._check_head(version, method)
            self._start_request(version, method)
        self.headers = []  # trailer fields are collected here and dropped
        self._overhead = 0
        self.waiting = Waiting.FOR_BODY
        self._wait += 1

    def _start_request(self, version: str, method: bytes) -> None:
        """Pass the request to the app, or queue it behind the previous one, as uvicorn does."""
        parser, scope = self.parser, self.scope
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["method"] = method.decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""
        expects_continue = self.expect_100_continue and version == "1.1"
        transport = self.transport
        if method != b"HEAD" and not expects_continue:  # `100 Continue` is written before the head
            transport = _OneWrite(self.transport)  # type: ignore[assignment]
        before = self.cycle
        self.cycle = cycle = RequestResponseCycle(
            scope=scope,
            transport=transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=expects_continue,
            keep_alive=version == "1.1" and parser.should_keep_alive(),
            on_response=self.on_response_complete,
        )
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))

    def on_body(self, body: bytes) -> None:
        """Pass on a piece of the body. Bytes around it count only if there are more than in a usual chunk."""
        self._overhead = max(0, self._overhead - 3 * len(body) - FREE_OVERHEAD)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the message. If a trailer field makes the parser end the connection, it ends here too."""
        cycle = self.cycle
        if cycle is None or (self._framing and self.parser.should_upgrade()):
            return  # the body is still to come
        cycle.more_body = False
        cycle.message_event.set()
        self._overhead = 0
        self._wait += 1
        if self._framing is CHUNKED and not self.parser.should_keep_alive():
            cycle.keep_alive = False
        self._ended = not cycle.keep_alive
        self.waiting = Waiting.FOR_REQUEST if cycle.response_complete else None
        if self._ended and cycle.response_complete:
            self.transport.close()

    def on_response_complete(self) -> None:
        """Start the next request, send the pending refusal, or wait for a request."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._refusal is not None:
            self._send_refusal(self._refusal)
        elif self.waiting is None:
            self.waiting, self.since = Waiting.FOR_REQUEST, self.loop.time()
        if not self.pipeline:
            self.flow.resume_reading()

    def pause_writing(self) -> None:
        """Record when the client stopped reading."""
        super().pause_writing()
        self.stalled_since = self.loop.time()

    def time_out(self, now: float) -> None:
        """End a wait that took too long. A connection that sent nothing is closed without a response."""
        if self.waiting is Waiting.TO_CLOSE:
            self.transport.abort()
        elif self.flow.read_paused:
            self.since = now  # the client waits for this service
        elif self.waiting is Waiting.FOR_REQUEST or self._wait == 0:
            self.transport.close()
        else:
            self._refuse(RequestTimedOut())

    def give_way(self) -> None:
        """Abort the connection to make room, or because the client has stopped reading."""
        self._ended = True
        self.transport.abort()

    def _check_head(self, version: str, method: bytes) -> None:
        fields = dict(self.headers)
        if version not in ("1.1", "1.0") or (version == "1.1" and b"host" not in fields):
            raise MalformedRequest("Use HTTP/1.1, with one Host header.")
        if len(self.pipeline) >= MAX_QUEUED:
            raise MalformedRequest(f"At most {MAX_QUEUED} requests may wait on a connection.")
        count = len(self.headers)
        if len(fields) != count or count > MAX_FIELDS or self._overhead + self._uncounted > MAX_HEAD:
            self._check_fields()
        if not self.url.startswith(b"/") or b"#" in self.url or method == b"CONNECT":
            self._check_target(fields.get(b"host", b""), method)
        self._framing = b""
        if b"transfer-encoding" in fields:
            if fields[b"transfer-encoding"].strip().lower() != b"chunked" or version == "1.0":
                raise MalformedRequest("The only transfer coding is chunked, once, in HTTP/1.1.")
            self._framing = CHUNKED
        elif b"content-length" in fields and (length := fields[b"content-length"].strip().lstrip(b"0")):
            self._framing = b"content-length: %s\r\n" % length  # the parser accepts only one number

    def _check_fields(self) -> None:
        """Check fields that are repeated or may be too long. So far, bytes after the head may be counted."""
        names = [name for name, _ in self.headers]
        if names.count(b"host") > 1:
            raise MalformedRequest("Use HTTP/1.1, with one Host header.")
        if names.count(b"transfer-encoding") > 1:
            raise MalformedRequest("The only transfer coding is chunked, once, in HTTP/1.1.")
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > MAX_HEAD or len(names) > MAX_FIELDS:
            raise MalformedRequest(
                f"A request line with its headers may have {MAX_HEAD} bytes and {MAX_FIELDS} headers."
            )

    def _check_target(self, host: bytes, method: bytes) -> None:
        scheme, _, rest = self.url.lower().partition(b"://")
        authority, slash, _ = rest.partition(b"/")
        known = scheme in (b"http", b"https") and authority == host.lower() and slash
        if not known or method == b"CONNECT" or b"?" in authority or b"#" in self.url:
            raise MalformedRequest("The request target is not a path of this service.")

    def _refuse(self, error: SessionApiError) -> None:
        """Read no further, and send the refusal after the responses to earlier requests."""
        self._ended = True
        self.headers = []
        log.info("request refused", code=error.code, reason=error.detail, client=self.address or "proxy")
        cycle = self.cycle
        under_way = cycle is not None and not cycle.response_complete
        if cycle is not None and self.waiting is Waiting.FOR_BODY:  # the refused message is its own
            if self.pipeline and self.pipeline[0][0] is cycle:
                self.pipeline.popleft()
            elif cycle.response_started:
                self._hang_up()
                return
            else:
                self._abandon(cycle)
                under_way = False
        if under_way:
            self._refusal, self.waiting = error, None
        else:
            self._send_refusal(error)

    def _abandon(self, cycle: RequestResponseCycle) -> None:
        """Disconnect the app from the client of a request, which then gets nothing that the app sends."""
        cycle.disconnected, cycle.waiting_for_100_continue = True, False
        cycle.message_event.set()

    def _send_refusal(self, error: SessionApiError) -> None:
        self._write_problem(error)
        self._hang_up()

    def _hang_up(self) -> None:
        """Send nothing more, and drop what still arrives, until the client closes or LINGER is over."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._abandon(self.cycle)
        self.waiting, self.since, self._overhead = Waiting.TO_CLOSE, self.loop.time(), 0
        self.flow.resume_reading()
        self.transport.write_eof()

    def _write_problem(self, error: SessionApiError) -> None:
        request_id = ids.new_request_id()
        status = problems.STATUS[error.code][0]
        body = to_json(problems.members(error, self._places.public_url, request_id))
        https = self._places.public_url.startswith("https:")
        headers = [
            *self.server_state.default_headers,
            (b"content-type", problems.MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *response_headers(https=https),
            (b"x-request-id", request_id.encode()),
        ]
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after))
        head = b"".join(b"%s: %s\r\n" % header for header in headers)
        has_body = self.parser.get_method() != b"HEAD"
        self.transport.write(b"%s%s\r\n%s" % (STATUS_LINE[status], head, body if has_body else b""))


class _OneWrite:
    """The transport of one response. It writes the head together with the first bytes of the body.

    uvicorn writes them separately, which takes two system calls and two packets for each response.
    """

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None

    def write(self, data: bytes) -> None:
        """Keep the head, which is the first call, and write everything else at once."""
        if self._head is None:
            self._head = data
            return
        head, self._head = self._head, b""
        self._transport.write(head + data)

    def close(self) -> None:
        """Close the connection after a head whose body failed."""
        if self._head:
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        """Return whether the connection is closing."""
        return self._transport.is_closing()


def _reason(problem: httptools.HttpParserError) -> SessionApiError:
    """Return the error that stopped the parser, which is one of our rules or of the parser's."""
    cause = problem.__context__
    if isinstance(cause, SessionApiError):
        return cause
    if cause is not None and not isinstance(cause, httptools.HttpParserError):
        log.error("unexpected error in the HTTP parser", exc_info=cause)
    return MalformedRequest(f"This is not a valid HTTP/1.1 request: {problem}." if not cause else None)
