"""GET with a deadline for the whole response and a bound on its unpacked size.

httpx bounds each read of a socket alone, so it waits without end for a server that sends one byte a second,
and it unpacks gzip without a limit. Here `Bounds` covers connecting, the head, the body, and what the body
unpacks to. Only gzip is asked for and accepted, because zlib stops at a size; brotli and zstd
of a few KiB become gigabytes. Looking up a name is the one step that a thread cannot interrupt. The resolver
has its own deadline.
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
    """`seconds` for the whole of a fetch, `size` in bytes of the unpacked body."""

    seconds: float
    size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response, unpacked."""

    status_code: int
    headers: httpx.Headers
    content: bytes


class OutOfBounds(httpx.HTTPError):
    """A response that takes too long, is too large, or is packed in another way than asked for."""


async def get(
    client: httpx.AsyncClient, url: httpx.URL | str, headers: Mapping[str, str], bounds: Bounds
) -> Answer:
    """Return the response to a GET; raises httpx.HTTPError and its kinds, OutOfBounds among them."""
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
    """One connection of a thread, kept between two requests; for one thread at a time.

    A timer ends a request at its deadline: it shuts the socket down, which wakes the thread that reads it.
    """

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._stream: Any = None
        self._lock = threading.Lock()
        self._overdue = False
        self._busy = False

    def get(self, url: httpx.URL | str, headers: Mapping[str, str], bounds: Bounds) -> Answer:
        """Return the response to a GET; raises what the function `get` does."""
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
        """Let a request that is under way fail, from another thread."""
        with self._lock:
            if not self._busy:
                return
            self._overdue = True
            sock = self._stream.get_extra_info("socket") if self._stream else None
            if sock is not None:
                with contextlib.suppress(OSError):
                    # Not SSLSocket.shutdown, which takes the TLS object away from the thread that reads.
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
        """Take the stream of a new connection (httpcore's trace extension)."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            with self._lock:
                self._stream = info["return_value"]
        if self._overdue:
            raise httpx.ReadTimeout("the deadline is over")


class _Body:
    """Collects a body, and stops it when it is too large."""

    def __init__(self, headers: httpx.Headers, largest: int) -> None:
        packed = headers.get("content-encoding", "identity").strip().lower()
        if packed not in ("", "identity", "gzip"):
            raise OutOfBounds("the response has a content coding that was not asked for")
        self._gzip = zlib.decompressobj(wbits=31) if packed == "gzip" else None
        self._largest = largest
        self._content = bytearray()
        self._is_begun = False

    def add(self, piece: bytes) -> None:
        """Take the next piece as it came from the network."""
        self._is_begun = True
        if self._gzip:
            try:
                piece = self._gzip.decompress(piece, self._largest + 1 - len(self._content))
            except zlib.error:
                raise OutOfBounds("the response is not gzip, although its header says so") from None
            if self._gzip.unused_data:  # zlib keeps all of it, without a bound
                raise OutOfBounds("the response goes on after the end of its gzip data")
        self._content += piece
        if len(self._content) > self._largest:
            raise OutOfBounds(f"the response is larger than {self._largest} bytes")

    def whole(self) -> bytes:
        """Return the body, which has come to its end."""
        if self._gzip and self._is_begun and not self._gzip.eof:
            raise OutOfBounds("the response is cut off")
        return bytes(self._content)


def _packed(headers: Mapping[str, str]) -> dict[str, str]:
    return {**headers, "Accept-Encoding": "gzip"}


def _too_slow(bounds: Bounds) -> OutOfBounds:
    return OutOfBounds(f"it did not answer within {bounds.seconds:g} s")
