"""Counting tries in the memory of one process: a restart forgets them, another process has its own."""

from bisect import bisect_right
from collections import OrderedDict
from dataclasses import dataclass, field

from sessionapi.clock import Clock
from sessionapi.metrics import Metrics
from sessionapi.throttling.limits import MANY, LimitName, RateLimits, refusal

MAX_KEYS = 100_000
"""Addresses or sessions that a process remembers for one limit: 26 MB with one try each (measured)."""


REFUSALS_PER_ADDRESS = 300
"""Refusals by a limit that a network is sent at once in a minute: ten times the logins of an address."""


class RateLimiter:
    """A sliding window for each address, user or session that is limited in memory."""

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

    def count(self, policy: LimitName, key: str) -> None:
        """Count one attempt of an address, a user or a session, or raise RateLimited and count nothing."""
        if not self._enabled:
            return
        windows = self._windows[policy]
        wait = windows.count(key, self._clock().timestamp())
        if wait > 0:
            self._metrics.throttled.labels(policy).inc()
            raise refusal(policy, windows.quota, windows.seconds, wait)

    def check(self, policy: LimitName, key: str) -> None:
        """Raise RateLimited if `count` would, and count nothing."""
        if not self._enabled:
            return
        windows = self._windows[policy]
        wait = windows.wait(key, self._clock().timestamp())
        if wait > 0:
            self._metrics.throttled.labels(policy).inc()
            raise refusal(policy, windows.quota, windows.seconds, wait)

    def is_flooding(self, network: str) -> bool:
        """Count a refusal of a network, and return whether it has had too many of them in a minute."""
        return self._enabled and self._refusals.count(network, self._clock().timestamp()) > 0


@dataclass(slots=True)
class SlidingWindow:
    """The moments of the tries of each key, the oldest first: at most `quota` in any `seconds`.

    Keys are dropped from one end, for they are in the order of their last try; past MAX_KEYS the one that was
    counted least recently goes. The design's library for this looks at every key after each try, which at
    1,000 addresses takes a whole core (measured, limits 5.8).
    """

    quota: int
    seconds: int
    _tries: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._tries)

    def count(self, key: str, now: float) -> float:
        """Count a try if there is room and return 0, else return the seconds until there is."""
        begin = now - self.seconds
        self._forget(begin)
        tries = self._tries.setdefault(key, [])
        del tries[: bisect_right(tries, begin)]
        if len(tries) >= self.quota:
            return tries[0] - begin
        tries.append(now)
        self._tries.move_to_end(key)
        return 0.0

    def wait(self, key: str, now: float) -> float:
        """Return the seconds until there is room for a try, 0 if there is. Nothing is counted."""
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
