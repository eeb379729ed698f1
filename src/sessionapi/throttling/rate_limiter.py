"""Rate limits in the memory of one process: a restart clears them, and each process has separate ones."""

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field

from sessionapi.clock import Clock
from sessionapi.metrics import Metrics
from sessionapi.throttling.limits import MANY, LimitName, RateLimits, refusal

MAX_KEYS = 100_000
"""Maximum number of keys (networks, users or sessions) per limit: 26 MB with one attempt each (measured)."""
REFUSALS_PER_ADDRESS = 300
"""Refusals per network and minute before further ones are delayed: ten times the logins of a network."""


class RateLimiter:
    """Rate limiter with one sliding window for each network, user or session."""

    def __init__(self, limits: RateLimits, clock: Clock, metrics: Metrics, *, enabled: bool) -> None:
        self._windows: dict[LimitName, SlidingWindow] = {
            "login": SlidingWindow(limits.login_per_address, 60),
            "signup": SlidingWindow(limits.signup_per_address, 3600),
            "refresh": SlidingWindow(limits.refresh_per_session, 60),
            "attempt": SlidingWindow(limits.password_checks_per_user, 60),
            "attempt_address": SlidingWindow(MANY * limits.password_checks_per_user, 60),
            "write": SlidingWindow(limits.writes_per_session, 60),
            "write_user": SlidingWindow(MANY * limits.writes_per_session, 60),
        }
        self._refusals = SlidingWindow(REFUSALS_PER_ADDRESS, 60)
        self._clock = clock
        self._metrics = metrics
        self._enabled = enabled

    def count(self, limit: LimitName, key: str) -> None:
        """Count an attempt of a network, a user or a session, or raise RateLimited and count nothing."""
        if self._enabled:
            self._refuse(limit, self._windows[limit].count(key, self._clock().timestamp()))

    def check(self, limit: LimitName, key: str) -> None:
        """Raise RateLimited if `count` would, but count nothing."""
        if self._enabled:
            self._refuse(limit, self._windows[limit].wait(key, self._clock().timestamp()))

    def is_flooding(self, network: str) -> bool:
        """Count a refusal of a network, and return whether it has had too many in the last minute."""
        return self._enabled and self._refusals.count(network, self._clock().timestamp()) > 0

    def _refuse(self, limit: LimitName, wait: float) -> None:
        """Raise RateLimited if there are seconds to wait."""
        if wait > 0:
            self._metrics.throttled.labels(limit).inc()
            window = self._windows[limit]
            raise refusal(limit, window.quota, window.seconds, wait)


@dataclass(slots=True)
class SlidingWindow:
    """Sliding windows: the times of each key's attempts, oldest first, at most `quota` in any `seconds`.

    Keys are kept in the order of their last attempt, so expired ones are dropped from one end; at MAX_KEYS
    the least recently counted key is dropped. The `limits` library (5.8) is not used, because it looks at
    every key after each attempt, which takes a whole core with 1,000 networks (measured).
    """

    quota: int
    seconds: int
    _tries: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._tries)

    def count(self, key: str, now: float) -> float:
        """Count an attempt if there is room and return 0, else return the seconds until there is room."""
        begin = now - self.seconds
        self._forget(begin)
        wait = self.wait(key, now)
        if wait > 0:
            return wait
        tries = self._tries.setdefault(key, [])
        del tries[: bisect_right(tries, begin)]
        tries.append(now)
        self._tries.move_to_end(key)
        return 0.0

    def wait(self, key: str, now: float) -> float:
        """Return the seconds until there is room for an attempt, or 0. Nothing is counted."""
        begin = now - self.seconds
        tries = self._tries.get(key, [])
        oldest = bisect_right(tries, begin)
        return tries[oldest] - begin if len(tries) - oldest >= self.quota else 0.0

    def _forget(self, until: float) -> None:
        while self._tries:
            key, tries = next(iter(self._tries.items()))
            if tries[-1] > until and len(self._tries) < MAX_KEYS:
                return
            del self._tries[key]
