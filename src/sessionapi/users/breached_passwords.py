"""Look up whether a password has leaked, without revealing it (the range search of Have I Been Pwned).

The request contains the first five hexadecimal digits of the password's SHA-1. The response lists the
remaining digits of every leaked password with this prefix. Padding hides even the number of entries. If there
is no response in time, the password is accepted, because an outage of the look-up must not keep users from
choosing one.
"""

import hashlib

import httpx
import structlog

from sessionapi import bounded_http
from sessionapi.bounded_http import Bounds
from sessionapi.metrics import Metrics

log = structlog.get_logger()

PREFIX = 5
OK = 200
TIMEOUT = 1
"""Seconds that a sign-up may have to wait for the look-up."""
LARGEST = 2**20
"""Maximum size of a response in bytes, uncompressed. With padding it has about 1,000 lines, 40 KiB."""


class BreachedPasswords:
    """Client of the service at `url`; the first five digits are appended to it."""

    def __init__(self, url: str, metrics: Metrics) -> None:
        self._url = url.rstrip("/")
        self._metrics = metrics

    async def contains(self, password: str) -> bool:
        """Return whether the password is known to have leaked; also False if the look-up fails."""
        digest = hashlib.sha1(password.encode(), usedforsecurity=False).hexdigest().upper()
        try:
            leaked = await self._range(digest[:PREFIX])
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
            log.warning("leaked passwords can't be looked up", problem=type(problem).__name__)
            self._metrics.breach_checks.labels("failed").inc()
            return False
        found = leaked.get(digest[PREFIX:], 0) > 0
        self._metrics.breach_checks.labels("found" if found else "clean").inc()
        return found

    async def _range(self, prefix: str) -> dict[str, int]:
        """Return the number of occurrences of each suffix; padding entries have 0."""
        async with httpx.AsyncClient() as client:
            answer = await bounded_http.get(
                client, f"{self._url}/{prefix}", {"Add-Padding": "true"}, Bounds(TIMEOUT, LARGEST)
            )
        if answer.status_code != OK:
            raise ValueError(f"unexpected status {answer.status_code}")
        lines = (line.partition(":") for line in answer.content.decode().split())
        return {rest: int(count) for rest, _, count in lines}
