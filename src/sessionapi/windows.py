"""Counting tries in the memory of one process: a restart forgets them, another process has its own."""

from collections import OrderedDict

from limits import RateLimitItemPerSecond
from limits.aio.storage import MovingWindowSupport, Storage
from limits.aio.strategies import MovingWindowRateLimiter

from sessionapi.clock import Clock
from sessionapi.limits import Limits, Policy, refusal
from sessionapi.metrics import Metrics

MAX_KEYS = 100_000
"""Addresses or sessions that a process remembers for one limit: about 30 MB if all of them are busy."""


class MemoryLimits:
    """A moving window for each address at the login and the sign-up, and for each session that refreshes."""

    def __init__(self, limits: Limits, clock: Clock, metrics: Metrics, *, enabled: bool) -> None:
        self._windows: dict[Policy, tuple[RateLimitItemPerSecond, MovingWindowRateLimiter]] = {
            "login": (RateLimitItemPerSecond(limits.login_per_address, 60), _limiter(clock)),
            "signup": (RateLimitItemPerSecond(limits.signup_per_address, 3600), _limiter(clock)),
            "refresh": (RateLimitItemPerSecond(limits.refresh_per_session, 60), _limiter(clock)),
        }
        self._clock = clock
        self._metrics = metrics
        self._enabled = enabled

    async def count(self, policy: Policy, key: str) -> None:
        """Count one try of an address or a session, or raise RateLimited, which counts nothing."""
        item, limiter = self._windows[policy]
        if not self._enabled or await limiter.hit(item, key):
            return
        stats = await limiter.get_window_stats(item, key)
        self._metrics.throttled.labels(policy).inc()
        wait = stats.reset_time - self._clock().timestamp()
        raise refusal(policy, item.amount, item.get_expiry(), wait)


def _limiter(clock: Clock) -> MovingWindowRateLimiter:
    return MovingWindowRateLimiter(Windows(clock))


class Windows(Storage, MovingWindowSupport):
    """The moments of the tries of each key, the oldest first: a storage for the library's moving windows.

    The library's own looks at every key after each try, with a change of thread for each: at 1,000 addresses
    that takes a whole core (measured, limits 5.8). This one drops keys from one end, for they are in the
    order of their last try and all have the same window; past MAX_KEYS the one that was counted least
    recently goes.
    """

    STORAGE_SCHEME = None

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._tries: OrderedDict[str, list[float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._tries)

    async def acquire_entry(self, key: str, limit: int, expiry: int, amount: int = 1) -> bool:
        """Count a try if there is room; no other task runs in between."""
        now = self._clock().timestamp()
        self._forget(now - expiry)
        tries = [at for at in self._tries.get(key, ()) if at > now - expiry]
        if len(tries) + amount > limit:
            return False
        self._tries[key] = tries + [now] * amount
        self._tries.move_to_end(key)
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002
        """Return (moment of the oldest try in the window, number of tries in it)."""
        now = self._clock().timestamp()
        tries = [at for at in self._tries.get(key, ()) if at > now - expiry]
        return (tries[0] if tries else now), len(tries)

    def _forget(self, until: float) -> None:
        while self._tries:
            key, tries = next(iter(self._tries.items()))
            if tries[-1] > until and len(self._tries) < MAX_KEYS:
                return
            del self._tries[key]

    @property
    def base_exceptions(self) -> type[Exception]:
        """Nothing fails here."""
        return ValueError

    async def check(self) -> bool:
        """Return that it works."""
        return True

    async def reset(self) -> int:
        """Forget everything."""
        count = len(self._tries)
        self._tries.clear()
        return count

    async def clear(self, key: str) -> None:
        """Forget one key."""
        self._tries.pop(key, None)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        """Refuse: this is of the library's fixed windows, as are the two below."""
        raise NotImplementedError

    async def get(self, key: str) -> int:
        """Refuse."""
        raise NotImplementedError

    async def get_expiry(self, key: str) -> float:
        """Refuse."""
        raise NotImplementedError
