"""The protected route as a share of the bare one, and the service's idle latency."""

import sys

import httpx

from benchmarks import rounds, service, workloads
from benchmarks.environments import HERE
from benchmarks.load import Measured, Run, look
from benchmarks.plan import Plan
from benchmarks.processes import Process, serving
from benchmarks.results import Bar, Results, Row
from sessionapi.settings import Settings

TARGET = 0.95
BARE = [sys.executable, str(HERE / "bare.py"), "{port}"]


def measure(plan: Plan, results: Results) -> None:
    """Compare the shipped service with the bare app."""
    folder = plan.place("protected")
    settings = service.settings_of(folder)
    service.prepare(settings)
    with service.running(folder) as ours, serving(BARE, folder / "bare.log") as bare:
        share = _share(plan, ours, bare, settings)
    results.rows += [share]
    results.protected.append(Bar("sessionapi", float(share.measured.split()[0]), ours=True))


def _share(plan: Plan, ours: Process, bare: Process, settings: Settings) -> Row:
    look(httpx.get(f"{bare.url}/protected"), "data", "user_id", "session_id")

    def run(process: Process) -> Measured:
        # A token is valid for a minute, so each run has a new one; the bare app is sent the same header.
        headers = workloads.sign_in(ours.url, settings)
        return Run(f"{process.url}/protected", plan.seconds, headers=headers).result()

    if plan.rounds > 1:
        run(ours), run(bare)  # warm-up
    found = rounds.interleaved({"bare": lambda: run(bare), "ours": lambda: run(ours)}, plan.rounds)
    share = rounds.ratio(found["ours"], found["bare"])
    speeds = f"{rounds.rate(found['ours']):,.0f}/s of {rounds.rate(found['bare']):,.0f}/s"
    what = "`/protected`, requests/s as a share of the bare route"
    return Row(what, f"≥ {TARGET}", f"{share:.2f} ({speeds})", share >= TARGET)
