"""Prometheus metrics. Labels have a few fixed values, never a name, an id or an IP address."""

from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, values
from prometheus_client.multiprocess import MultiProcessCollector


class Metrics:
    """All metrics of one app, in a separate registry, so that two apps in one process don't mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "sessionapi_requests",
            "Requests by route and status.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "sessionapi_request_seconds",
            "Time to answer a request, in seconds.",
            ["route"],
            registry=self.registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10),
        )
        self.hashes = Counter(
            "sessionapi_password_hashes", "Password hashes computed.", registry=self.registry
        )
        self.hash_queue = Gauge(
            "sessionapi_password_hash_queue",
            "Password hashes waiting or being computed.",
            registry=self.registry,
            multiprocess_mode="livesum",
        )
        self.refreshes = Counter(
            "sessionapi_refreshes",
            "Refreshes by outcome: renewal, rotation, repeat or reuse.",
            ["outcome"],
            registry=self.registry,
        )
        self.throttled = Counter(
            "sessionapi_throttled",
            "Requests refused by a limit, by the name of the limit in RateLimit-Policy.",
            ["policy"],
            registry=self.registry,
        )
        self.breach_checks = Counter(
            "sessionapi_breach_checks",
            "New passwords looked up in the list of leaked passwords, by outcome: clean, found or failed.",
            ["outcome"],
            registry=self.registry,
        )

        self._refresh_series = lru_cache(self.refreshes.labels)
        self._request_series = lru_cache(maxsize=1_000)(self._find_request_series)

    def count_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request that took `seconds`."""
        counter, histogram = self._request_series(method, route, status)
        counter.inc()
        histogram.observe(seconds)

    def count_refresh(self, outcome: str) -> None:
        """Count a refresh with this outcome."""
        self._refresh_series(outcome).inc()

    def _find_request_series(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self.requests.labels(method, route, status), self.request_seconds.labels(route)

    def render(self) -> bytes:
        """Return the text format that Prometheus scrapes. Any worker returns the sum over all workers."""
        if values.ValueClass is values.MutexValue:
            return generate_latest(self.registry)
        all_workers = CollectorRegistry()
        MultiProcessCollector(all_workers)
        return generate_latest(all_workers)
