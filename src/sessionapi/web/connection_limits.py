"""The open connections of a process: how many there may be, and how long each may wait for its client."""

import asyncio
import heapq
import resource
from collections.abc import Set as AbstractSet
from enum import IntEnum
from functools import lru_cache
from ipaddress import ip_network
from typing import TYPE_CHECKING

import structlog

from sessionapi.settings import Settings
from sessionapi.throttling import limits

if TYPE_CHECKING:
    from sessionapi.web.http_protocol import HttpProtocol

log = structlog.get_logger()

SWEEP_INTERVAL = 0.5
"""Seconds between two checks of the deadlines. One timer serves all connections, so a request sets none."""
LINGER = 2.0
"""Seconds that a client has to read a refusal before its connection is aborted. Closing a socket with unread
input resets the connection, and the client would lose the refusal (RFC 9112 section 9.6)."""
SETTLED = 1.0
"""Seconds after which an incomplete head or body counts as slow, and not merely as in transit."""
RESERVED_FILES = 128
"""File descriptors for what is not a connection: the database, the log, the listening socket, libraries."""
LOG_INTERVAL = 60.0
"""Seconds between two log lines about refused connections."""


STATE = "sessionapi.connections"
"""The key in the lifespan state with which the app passes the `Connections` of its process to the server."""


class Waiting(IntEnum):
    """Reasons why a connection waits for its client, in the order in which they are closed to make room."""

    TO_CLOSE = 0
    FOR_HEAD = 1
    FOR_BODY = 2
    FOR_REQUEST = 3


class Connections:
    """Admits connections, makes room for new ones, and ends those that wait too long.

    When every place is taken, the least important connections are aborted: those that are being closed, then
    those with a slow request, then idle ones. A connection whose request is being processed keeps its place.
    So a client that takes every place does not shut out the others.
    """

    def __init__(self, settings: Settings) -> None:
        self.public_url = settings.public_url
        self._body_timeout = settings.body_timeout
        self._most_per_address = settings.connections_per_address
        self._timeouts = {
            Waiting.TO_CLOSE: LINGER,
            Waiting.FOR_HEAD: settings.head_timeout,
            Waiting.FOR_BODY: settings.body_timeout,
            Waiting.FOR_REQUEST: settings.keep_alive_timeout,
        }
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._most = min(settings.connections, max(16, files - RESERVED_FILES))
        self._open: set[HttpProtocol] = set()
        self._by_address: dict[str, set[HttpProtocol]] = {}
        self._sweeping = False
        self._logged_at = float("-inf")
        networks = [ip_network(text) for text in limits.trusted_peers(settings.trusted_proxies)]

        @lru_cache(maxsize=4096)
        def address_of(host: str | None) -> str:
            peer = limits.address(host)
            trusted = peer is not None and any(peer in network for network in networks)
            return "" if trusted else limits.network(host)

        self._address_of = address_of

    def admit(self, connection: "HttpProtocol") -> bool:
        """Give a new connection a place, unless every place is taken and none can be freed."""
        loop = connection.loop
        connection.address = self._address_of(connection.client[0] if connection.client else None)
        group: set[HttpProtocol] = set()
        if connection.address:
            group = self._by_address.setdefault(connection.address, group)
        else:  # a trusted proxy carries many clients, and may open connections before it needs them
            connection.waiting = Waiting.FOR_REQUEST
        now = loop.time()
        has_place = self._has_room(group, self._most_per_address, now) and self._has_room(
            self._open, self._most, now
        )
        if not has_place:
            self._log_refusal(now, connection)
            return False
        group.add(connection)
        self._open.add(connection)
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(SWEEP_INTERVAL, self._sweep, loop)
        return True

    def remove(self, connection: "HttpProtocol") -> None:
        """Free the place of a connection that has ended."""
        self._open.discard(connection)
        group = self._by_address.get(connection.address)
        if group is not None:
            group.discard(connection)
            if not group:
                del self._by_address[connection.address]

    def _has_room(self, held: AbstractSet["HttpProtocol"], most: int, now: float) -> bool:
        """Return whether a place is free. If not, free several at once, because each search takes long."""
        if len(held) < most:
            return True
        waiting = [each for each in held if each.waiting is not None]
        for each in heapq.nsmallest(max(1, most // 64), waiting, key=lambda one: _rank(one, now)):
            self._open.discard(each)
            each.give_way()
            if (group := self._by_address.get(each.address)) is not None:
                group.discard(each)
        return len(held) < most

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for connection in tuple(self._open):
            if connection.flow.write_paused and now - connection.stalled_since > self._body_timeout:
                connection.give_way()
            elif connection.transport.is_closing() and connection.waiting is not Waiting.TO_CLOSE:
                connection.waiting, connection.since = Waiting.TO_CLOSE, now
            elif connection.waiting is not None and (
                now - connection.since > self._timeouts[connection.waiting]
            ):
                connection.time_out(now)
        self._sweeping = bool(self._open)
        if self._sweeping:
            loop.call_later(SWEEP_INTERVAL, self._sweep, loop)

    def _log_refusal(self, now: float, connection: "HttpProtocol") -> None:
        if now - self._logged_at > LOG_INTERVAL:
            self._logged_at = now
            log.warning(
                "connection refused: every place is taken by a request that is being answered; see "
                "SESSIONAPI_CONNECTIONS and SESSIONAPI_CONNECTIONS_PER_ADDRESS",
                open=len(self._open),
                client=connection.address,
            )


def _rank(connection: "HttpProtocol", now: float) -> tuple[int, float]:
    """Return the sort key by which connections are aborted. Requests that have just begun come last."""
    waiting = connection.waiting or Waiting.TO_CLOSE
    is_new = waiting in (Waiting.FOR_HEAD, Waiting.FOR_BODY) and now - connection.since < SETTLED
    return (len(Waiting) if is_new else waiting.value, connection.since)
