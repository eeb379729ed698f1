"""Two workers on two cores compared with one, with the load on the same two cores; its share is reported."""

from benchmarks import rounds, service, workloads
from benchmarks.load import Measured, Run
from benchmarks.plan import Plan
from benchmarks.processes import ALL_CORES
from benchmarks.results import Results, Row
from sessionapi.settings import Settings

CLIENTS = 128
"""Enough connections that each worker gets its share of them."""


def measure(plan: Plan, results: Results) -> None:
    """Load the protected route of both in turn."""
    folder = plan.place("workers")
    settings = service.settings_of(folder)
    service.prepare(settings)
    with (
        service.running(folder, cores=ALL_CORES) as one,
        service.running(folder, cores=ALL_CORES, workers=2) as two,
    ):
        runs = {"one": lambda: _run(plan, one.url, settings), "two": lambda: _run(plan, two.url, settings)}
        for run in runs.values():
            run()  # warm-up
        found = rounds.interleaved(runs, plan.rounds)
    factor = rounds.ratio(found["two"], found["one"])
    shares = [max(each.load_share for each in found[name]) for name in runs]
    measured = (
        f"{factor:.2f} ({rounds.rate(found['two']):,.0f}/s against {rounds.rate(found['one']):,.0f}/s; "
        f"the load took {shares[1]:.0%} of a core beside two workers, {shares[0]:.0%} beside one)"
    )
    results.rows.append(
        Row("2 workers ÷ 1 worker on 2 cores, `/protected`", "as near 2 as the load allows", measured)
    )


def _run(plan: Plan, url: str, settings: Settings) -> Measured:
    headers = workloads.sign_in(url, settings)
    arguments = {"headers": headers, "clients": CLIENTS, "cores": ALL_CORES}
    return Run(f"{url}/protected", plan.seconds, **arguments).result()
