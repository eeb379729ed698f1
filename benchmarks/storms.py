"""A storm of logins, and how long the protected route takes for another client during the storm."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.load import Measured, Run
from benchmarks.workloads import Workload

PROBES = 8
PROBE_PAUSE = "20"
"""Milliseconds between two requests of one probe, on average. Together the probes send about 400 a second, as
many as a busy site.
"""
LEAD = 1.0
"""Seconds from the start of the storm to the start of the probes."""


@dataclass(frozen=True)
class Storm:
    """The latency of the protected route without and with the storm, and the logins of the storm."""

    idle: Measured
    during: Measured
    logins: Measured

    @property
    def factor(self) -> float:
        return self.during.p99_ms / self.idle.p99_ms


def storm(
    url: str,
    headers: Mapping[str, str],
    logins: Workload,
    clients: int,
    seconds: float,
    watched: float | None = None,
) -> Storm:
    """Probe the protected route, first alone and then while clients log in without pause.

    `watched` is the length of the storm in seconds, if it differs from that of a run.
    """
    watched = watched or seconds
    idle = probe(url, headers, seconds)
    raging = Run(**logins.arguments, seconds=watched + 2 * LEAD, clients=clients)
    time.sleep(LEAD)
    during = probe(url, headers, watched)
    return Storm(idle, during, raging.result())


def probe(url: str, headers: Mapping[str, str], seconds: float) -> Measured:
    """Request the protected route now and then."""
    return Run(
        f"{url}/protected",
        seconds,
        clients=PROBES,
        headers=headers,
        script="probe.lua",
        arguments=[PROBE_PAUSE],
    ).result()
