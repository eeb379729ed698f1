"""The time to start, and the memory of a worker when idle and after many logins."""

import time
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from benchmarks import service, workloads
from benchmarks.load import LONG, Run
from benchmarks.plan import Plan
from benchmarks.processes import Process
from benchmarks.results import Results, Row
from sessionapi.settings import Settings

START_SECONDS = 2.0
MEGABYTES = 120
FLAT = 1.05
"""How much more memory may be resident after all logins than after a tenth of them."""
CHEAP = {"hash_memory_kib": 8, "hash_time": 1}
USERS = 2_000
"""Enough users that none of them reaches the limit of sessions."""


def measure(plan: Plan, results: Results) -> None:
    """Start once to create everything, start again several times, then log in."""
    folder = plan.place("footprint")
    settings = service.settings_of(folder, **CHEAP)
    with service.running(folder):
        pass
    starts = [_seconds(folder) for _ in range(plan.rounds)]
    took = median(starts)
    results.rows.append(
        Row("second start to ready", f"≤ {START_SECONDS:.0f} s", f"{took:.1f} s", took <= START_SECONDS)
    )
    with service.running(folder, **CHEAP) as process:
        results.rows.append(_memory(plan, folder, process, settings))


def _seconds(folder: Path) -> float:
    began = time.monotonic()
    with service.running(folder):
        return time.monotonic() - began


def _memory(plan: Plan, folder: Path, process: Process, settings: Settings) -> Row:
    names = workloads.people(settings, USERS)
    idle = process.resident_mb()
    tenth = plan.logins // 10
    early = _after(folder, process, names, tenth)
    late = _after(folder, process, names, plan.logins - tenth)
    measured = (
        f"{idle:.0f} MB idle, {early:.0f} MB after {tenth:,} logins, {late:.0f} MB after {plan.logins:,}"
    )
    reached = max(idle, early, late) <= MEGABYTES and late <= early * FLAT
    what = f"resident memory of one worker, idle and after {plan.logins:,} logins"
    return Row(what, f"≤ {MEGABYTES} MB, flat", measured, reached)


def _after(folder: Path, process: Process, names: list[str], count: int) -> float:
    """Log in that many more times, then return the resident memory."""
    bodies = map(workloads.login_body, islice(cycle(names), count))
    posts = workloads.posts(f"{process.url}/login", folder / "logins.txt", bodies, once=True)
    Run(**posts.arguments, seconds=LONG).result()
    return process.resident_mb()
