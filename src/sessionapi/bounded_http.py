"""GET requests with a deadline for the whole response and a limit on its decompressed size.

The timeouts of httpx apply to each read of a socket. So httpx waits indefinitely for a server that sends one
byte a second, and it decompresses gzip without a limit. Here `Bounds` limits the time for the connection, the
headers and the body together, and the size of the decompressed body. Only gzip is requested and accepted,
because zlib can stop at a given size, while a few KiB of brotli or zstd can expand to gigabytes. Name
resolution is the only step that another thread cannot interrupt. The resolver has its own deadline.
"""

import asyncio
import contextlib
import socket
import threading
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of one fetch: `seconds` in total, and `size` in bytes of the decompressed body."""

    seconds: float
    size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete response, decompressed."""

    status_code: int
    headers: httpx.Headers
    content: bytes


class OutOfBounds(httpx.HTTPError):
    """The response took too long, was too large, or had a content coding that was not requested."""


async def get(
    client: httpx.AsyncClient, url: httpx.URL | str, headers: Mapping[str, str], bounds: Bounds
) -> Answer:
    """Return the response to a GET. Raises httpx.HTTPError and its subclasses, including OutOfBounds."""
    try:
        async with (
            asyncio.timeout(bounds.seconds),
            client.stream("GET", url, headers=_packed(headers), timeout=None) as response,
        ):
            body = _Body(response.headers, bounds.size)
            async for piece in response.aiter_raw():
                body.add(piece)
    except TimeoutError:
        raise _too_slow(bounds) from None
    return Answer(response.status_code, response.headers, body.whole())


class Connection:
    """A connection that is kept open between requests, for use by one thread at a time.

    A timer ends a request at its deadline. It shuts down the socket, which wakes the reading thread.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._stream: Any = None
        self._lock = threading.Lock()
        self._overdue = False
        self._busy = False

    def get(self, url: httpx.URL | str, headers: Mapping[str, str], bounds: Bounds) -> Answer:
        """Return the response to a GET. Raises the same errors as the function `get`."""
        try:
            with (
                self._deadline(bounds),
                self._client.stream(
                    "GET",
                    url,
                    headers=_packed(headers),
                    timeout=bounds.seconds,
                    extensions={"trace": self._trace},
                ) as response,
            ):
                body = _Body(response.headers, bounds.size)
                for piece in response.iter_raw():
                    body.add(piece)
        except (httpx.HTTPError, OSError):
            if self._overdue:
                raise _too_slow(bounds) from None
            raise
        return Answer(response.status_code, response.headers, body.whole())

    def cut(self) -> None:
        """Abort the current request from another thread."""
        with self._lock:
            if not self._busy:
                return
            self._overdue = True
            sock = self._stream.get_extra_info("socket") if self._stream else None
            if sock is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which removes the TLS object that the reading thread uses.
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    @contextlib.contextmanager
    def _deadline(self, bounds: Bounds) -> Iterator[None]:
        timer = threading.Timer(bounds.seconds, self.cut)
        timer.daemon = True
        self._overdue, self._busy = False, True
        timer.start()
        try:
            yield
        finally:
            with self._lock:
                self._busy = False
            timer.cancel()

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Store the stream of a new connection (httpcore's trace extension)."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                self._stream = info["return_value"]
        if self._overdue:
            raise httpx.ReadTimeout("the deadline has passed")


class _Body:
    """Collects and decompresses a body, and raises OutOfBounds when it is too large."""

    def __init__(self, headers: httpx.Headers, largest: int) -> None:
        packed = headers.get("content-encoding", "identity").strip().lower()
        if packed not in ("", "identity", "gzip"):
            raise OutOfBounds("the response has a content coding that was not requested")
        self._gzip = zlib.decompressobj(wbits=31) if packed == "gzip" else None
        self._largest = largest
        self._content = bytearray()
        self._is_begun = False

    def add(self, piece: bytes) -> None:
        """Add the next piece as received from the network."""
        self._is_begun = True
        if self._gzip:
            try:
                piece = self._gzip.decompress(piece, self._largest + 1 - len(self._content))
            except zlib.error:
                raise OutOfBounds("the response is not gzip, although its header declares gzip") from None
            if self._gzip.unused_data:  # zlib keeps all of it, without a limit
                raise OutOfBounds("the response continues after the end of its gzip data")
        self._content += piece
        if len(self._content) > self._largest:
            raise OutOfBounds(f"the response is larger than {self._largest} bytes")

    def whole(self) -> bytes:
        """Return the body after its last piece. Raises OutOfBounds if the gzip data is incomplete."""
        if self._gzip and self._is_begun and not self._gzip.eof:
            raise OutOfBounds("the response is incomplete")
        return bytes(self._content)


def _packed(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "Accept-Encoding": "gzip"}


def _too_slow(bounds: Bounds) -> OutOfBounds:
    return OutOfBounds(f"no complete response within {bounds.seconds:g} s")
