"""The rate of logins, close to what the cores can hash, and the effect of logins on other requests."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from argon2 import PasswordHasher

from benchmarks import rounds, service, workloads
from benchmarks.load import Run
from benchmarks.plan import Plan
from benchmarks.processes import ALL_CORES
from benchmarks.results import Bar, Results, Row
from benchmarks.storms import Storm, storm
from sessionapi.settings import Settings

CORES = len(ALL_CORES.split(","))
SHARE = 0.95
P99_MS = 3.0
FACTOR = 4.0
CLIENTS = (64, 16)
"""Clients that log in at the same time; the peers are measured with 16."""
HASHES = 30


def measure(plan: Plan, results: Results) -> None:
    """Measure the rate of logins on all cores, then the storm of logins on one core."""
    folder = plan.place("login")
    settings = service.settings_of(folder)
    service.prepare(settings)
    with service.running(folder, cores=ALL_CORES) as process:
        load = workloads.login(process.url, folder, settings)
        results.rows.append(_rate(plan, load, settings))
    with service.running(folder) as process:
        load = workloads.login(process.url, folder, settings)
        for clients in CLIENTS:
            found = [
                storm(process.url, workloads.sign_in(process.url, settings), load, clients, plan.seconds)
                for _ in range(plan.rounds)
            ]
            results.rows.append(storm_row(found, clients))
    results.storm.append(Bar("sessionapi", rounds.p50([each.during for each in found]), ours=True))


def _rate(plan: Plan, load: workloads.Workload, settings: Settings) -> Row:
    """Compare the rate with the time of one verification, measured before each run."""
    times, runs = [], []
    for _ in range(plan.rounds):
        times.append(verification_seconds(settings))
        runs.append(Run(**load.arguments, seconds=2 * plan.seconds).result())
    share = statistics.median(run.per_second * one / CORES for run, one in zip(runs, times, strict=True))
    together = statistics.median(verification_seconds(settings, CORES) for _ in range(plan.rounds))
    one = statistics.median(times)
    measured = (
        f"{share:.2f} ({rounds.rate(runs):.1f}/s; one verification takes {one * 1e3:.1f} ms, "
        f"{together * 1e3:.1f} ms while all {CORES} cores hash)"
    )
    return Row(
        "`/login`, as a share of (cores ÷ time of one Argon2id verification)",
        f"≥ {SHARE}",
        measured,
        share >= SHARE,
    )


def verification_seconds(settings: Settings, threads: int = 1) -> float:
    """Return the median time of a verification with the service's parameters, in some threads at once."""
    hasher = PasswordHasher(settings.hash_time, settings.hash_memory_kib, parallelism=1)
    hashed = hasher.hash(workloads.PASSWORD)

    def one(_: int) -> float:
        began = time.perf_counter()
        hasher.verify(hashed, workloads.PASSWORD)
        return time.perf_counter() - began

    with ThreadPoolExecutor(threads) as pool:
        return statistics.median(pool.map(one, range(HASHES * threads)))


def storm_row(found: list[Storm], clients: int) -> Row:
    """Report the effect of a login storm on the protected route."""
    during, idle = rounds.p99([each.during for each in found]), rounds.p99([each.idle for each in found])
    factor = statistics.median(each.factor for each in found)
    logins = rounds.rate([each.logins for each in found])
    middle = rounds.p50([each.during for each in found])
    return Row(
        f"`/protected` p99 while {clients} clients log in without pause",
        f"≤ {P99_MS:.0f} ms and ≤ {FACTOR:.0f} × idle",
        f"{during:.1f} ms = {factor:.1f} × idle {idle:.1f} ms (p50 {middle:.1f} ms; {logins:.0f} logins/s)",
        during <= P99_MS and factor <= FACTOR,
    )
