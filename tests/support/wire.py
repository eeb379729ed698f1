"""A proxy between a browser and the server, which counts, delays and loses requests and responses."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Loss = Literal["request", "answer", "body"]
"""Lost part: the request, the response, or only its body, so that no script sees the new generation."""
HOP = frozenset({"connection", "transfer-encoding", "content-length"})


@dataclass(frozen=True)
class Refresh:
    """A refresh that reached the server, with its response."""

    at: float
    active: bool
    key: str | None
    status: int
    generation: int | None
    lost: Loss | None


@dataclass
class Wire:
    """The URL of the proxy, and its records. `lose` decides about each refresh."""

    url: str
    upstream: str = ""
    refreshes: list[Refresh] = field(default_factory=list)
    lose: Callable[[], Loss | None] = lambda: None
    hold: threading.Event | None = None
    lost: int = 0
    under_way: int = 0
    most_under_way: int = 0

    def held(self) -> threading.Event | None:
        """Take the event that the next response waits for, if there is one."""
        gate, self.hold = self.hold, None
        return gate

    def statuses(self) -> set[int]:
        return {refresh.status for refresh in self.refreshes}


class Handler(BaseHTTPRequestHandler):
    """A handler with HTTP/1.0: a connection for each request, so that Chromium never resends one itself."""

    wire: Wire

    def serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path != "/refresh":
            self.relay(*self.ask(body))
            return
        self.wire.under_way += 1
        self.wire.most_under_way = max(self.wire.most_under_way, self.wire.under_way)
        try:
            self.refresh(body)
        finally:
            self.wire.under_way -= 1

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def refresh(self, body: bytes) -> None:
        loss = self.wire.lose() if self.command == "POST" else None
        self.wire.lost += loss is not None
        if loss == "request":
            return
        arrived = time.monotonic()
        gate = self.wire.held() if self.command == "POST" else None
        answer, content = self.ask(body)
        if self.command == "POST":
            told = json.loads(content)
            key, generation = self.headers["Idempotency-Key"], told.get("generation")
            active = json.loads(body)["active"]
            self.wire.refreshes.append(Refresh(arrived, active, key, answer.status, generation, loss))
        if gate:
            gate.wait(60)
        if loss != "answer":
            self.relay(answer, content, cut=loss == "body")

    def ask(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        upstream = http.client.HTTPConnection(urlsplit(self.wire.upstream).netloc, timeout=60)
        upstream.request(self.command, self.path, body, dict(self.headers))
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        return answer, content

    def relay(self, answer: http.client.HTTPResponse, content: bytes, *, cut: bool = False) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)

    def handle(self) -> None:
        """Ignore a connection that the browser has closed, because it was killed or gave up."""
        try:
            super().handle()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class Threads(ThreadingHTTPServer):
    """A server with a backlog for ten tabs at once."""

    request_queue_size = 64
    daemon_threads = True


@contextmanager
def wire(host: str = "127.0.0.1") -> Iterator[Wire]:
    """Yield a proxy. Its `upstream` is set later, because the server needs the page's URL first."""
    handler = type("Bound", (Handler,), {})
    server = Threads((host, 0), handler)
    handler.wire = Wire(f"http://{host}:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler.wire
    server.shutdown()
    server.server_close()
