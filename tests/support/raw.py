"""Requests as bytes on a socket, and all responses to them, for requests that no HTTP client would send."""

import contextlib
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

PATIENCE = 60
"""Seconds after which a response counts as lost."""


@dataclass(frozen=True)
class Response:
    """One response; `headers` has lower-case names."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Closed(Exception):
    """The server closed the connection before the response was complete."""


class Connection:
    """A connection to a server, and the bytes that the server has sent so far."""

    def __init__(self, url: str, *, source: str = "127.0.0.1") -> None:
        host, port = url.removeprefix("http://").split(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> "Connection":
        """Send each part in a separate packet, as far as the kernel allows."""
        for part in parts:
            self.socket.sendall(part)
        return self

    def read(self, *, method: str = "GET") -> Response:
        """Return the next response. Raises Closed if the server sent none."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        status_line, *lines = head.removesuffix("\r\n\r\n").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        found = re.fullmatch(r"HTTP/1\.1 (\d{3}) .*", status_line)
        assert found, f"not a status line: {status_line!r}"
        status = int(found[1])
        if status == 100:
            return Response(status, headers, b"")
        if headers.get("transfer-encoding") == "chunked":
            return Response(status, headers, b"".join(self._chunks()))
        length = 0 if method == "HEAD" or status == 204 else int(headers["content-length"])
        return Response(status, headers, self._exactly(length))

    def read_all(self) -> list[Response]:
        """Return all responses until the server closes; left-over bytes are an error."""
        found = []
        while not self.is_closed():
            found.append(self.read())
        return found

    def is_closed(self) -> bool:
        """Wait for the next byte, and return whether the server closed instead."""
        try:
            return not self._received and not self._more()
        except ConnectionResetError:
            return True

    def _more(self) -> bool:
        data = self.socket.recv(65_536)
        self._received += data
        return bool(data)

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            if not self._more():
                raise Closed(self._received)
        head, _, self._received = self._received.partition(end)
        return head + end

    def _exactly(self, length: int) -> bytes:
        while len(self._received) < length:
            if not self._more():
                raise Closed(self._received)
        body, self._received = self._received[:length], self._received[length:]
        return body

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._until(b"\r\n"), 16):
            yield self._exactly(size + 2)[:-2]
        self._until(b"\r\n")


def request(method: str, path: str, body: bytes = b"", *headers: str, host: str = "localhost") -> bytes:
    """Return a request with these header lines, and with a length if it has a body."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(
    method: str, path: str, body: bytes, *headers: str, trailers: tuple[str, ...] = (), size: int = 7
) -> bytes:
    """Return a request with its body in chunks, and with trailer fields."""
    pieces = [body[start : start + size] for start in range(0, len(body), size)]
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    head = "\r\n".join([*lines, "Transfer-Encoding: chunked"]).encode() + b"\r\n\r\n"
    content = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head + content + b"0\r\n" + "".join(f"{line}\r\n" for line in trailers).encode() + b"\r\n"


def exchange(url: str, *parts: bytes) -> list[Response]:
    """Send the parts on a new connection, and return all responses until the server closes it."""
    with Connection(url) as connection:
        with contextlib.suppress(ConnectionError):  # it may have refused the first parts, and closed
            connection.send(*parts)
        return connection.read_all()
