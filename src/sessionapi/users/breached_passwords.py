"""Asking whether a password has leaked, without telling it (the range search of Have I Been Pwned).

Five letters of its SHA-1 are sent; the answer lists what all leaked passwords with these five go on with.
With padding the length of the answer tells nothing either. When nothing comes in time, the password passes: a
service that is away must not keep people from choosing one.
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
"""Seconds: what somebody who signs up may have to wait for it."""
LARGEST = 2**20
"""Bytes of a response, unpacked. With padding it has about 1,000 lines, 40 KiB."""


class BreachedPasswords:
    """Asks the service at `url`, which is followed by the five letters."""

    def __init__(self, url: str, metrics: Metrics) -> None:
        self._url = url.rstrip("/")
        self._metrics = metrics

    async def contains(self, password: str) -> bool:
        """Return whether the password is known to have leaked; False too if that can't be found out."""
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
        """Return how often each leaked rest was seen; padding has 0."""
        async with httpx.AsyncClient() as client:
            answer = await bounded_http.get(
                client, f"{self._url}/{prefix}", {"Add-Padding": "true"}, Bounds(TIMEOUT, LARGEST)
            )
        if answer.status_code != OK:
            raise ValueError(f"it answered {answer.status_code}")
        lines = (line.partition(":") for line in answer.content.decode().split())
        return {rest: int(count) for rest, _, count in lines}
