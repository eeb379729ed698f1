"""Refreshes as a share of a bare POST with the same bodies: renewing and rotating, on both engines."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks import fill, postgresql, rounds, service, workloads
from benchmarks.load import Measured, Run, WrongAnswers, look
from benchmarks.measures.protected import BARE
from benchmarks.plan import Plan
from benchmarks.processes import Process, serving
from benchmarks.results import Results, Row
from sessionapi.settings import Settings

TARGETS = {"renewal": 0.60, "rotation": 0.50}
MARGIN = 1.2
"""More sessions than the bare app could refresh in a run: each is refreshed at most once, so it rotates."""


def measure(plan: Plan, results: Results) -> None:
    """Measure both kinds of refresh on SQLite, and on PostgreSQL if there is one."""
    for engine in ("SQLite", "PostgreSQL") if plan.postgresql else ("SQLite",):
        folder = plan.place(f"refresh-{engine}")
        with (
            _service(plan, folder, engine) as (process, settings),
            serving(BARE, folder / "bare.log") as bare,
        ):
            results.rows += _rows(plan, folder, engine, process, settings, bare)


@contextmanager
def _service(plan: Plan, folder: Path, engine: str) -> Iterator[tuple[Process, Settings]]:
    url = postgresql.database(plan.postgresql, "refresh") if engine == "PostgreSQL" else ""
    settings = service.settings_of(folder, database_url=url)
    service.prepare(settings)
    with service.running(folder, database_url=url) as process:
        yield process, settings


def _rows(
    plan: Plan, folder: Path, engine: str, process: Process, settings: Settings, bare: Process
) -> list[Row]:
    first = fill.fill(settings, service.refresh_key(), 64).refresh_tokens
    look(httpx.post(f"{process.url}/refresh", json={"refresh_token": first[0]}), "access_token")
    look(httpx.post(f"{bare.url}/refresh", json={"refresh_token": first[0]}), "access_token")
    file = folder / "bare.txt"
    posts = workloads.posts(f"{bare.url}/refresh", file, map(workloads.refresh_body, first))

    def run_bare() -> Measured:
        return Run(**posts.arguments, seconds=plan.seconds).result()

    count = int(run_bare().per_second * plan.seconds * MARGIN)

    def run(outcome: str) -> Measured:
        return _run(plan, folder, process, settings, outcome, count)

    found = rounds.interleaved(
        {"bare": run_bare, **{outcome: lambda outcome=outcome: run(outcome) for outcome in TARGETS}},
        plan.rounds,
    )
    return [_row(engine, outcome, found) for outcome in TARGETS]


def _run(
    plan: Plan, folder: Path, process: Process, settings: Settings, outcome: str, count: int
) -> Measured:
    """Refresh sessions of one kind, each once, and check that all had the intended outcome."""
    filled = fill.fill(settings, service.refresh_key(), count, due=outcome == "rotation")
    bodies = map(workloads.refresh_body, filled.refresh_tokens)
    posts = workloads.posts(f"{process.url}/refresh", folder / "refresh.txt", bodies)
    before = outcomes(process.url)
    measured = Run(**posts.arguments, seconds=plan.seconds).result()
    after = outcomes(process.url)
    others = {name: after[name] - before.get(name, 0) for name in after if name != outcome}
    if any(others.values()) or after[outcome] - before.get(outcome, 0) < measured.answers:
        raise WrongAnswers(f"{measured.answers} refreshes should all be {outcome}s: {before} became {after}")
    return measured


def outcomes(url: str) -> dict[str, int]:
    """Return how many refreshes the service counted, by their outcome."""
    text = httpx.get(f"{url}/metrics").text
    found = re.findall(r'^sessionapi_refreshes_total\{outcome="(\w+)"\} (\S+)$', text, re.MULTILINE)
    return {name: int(float(value)) for name, value in found}


def _row(engine: str, outcome: str, found: rounds.Runs) -> Row:
    share, target = rounds.ratio(found[outcome], found["bare"]), TARGETS[outcome]
    kind = {"renewal": "renewing", "rotation": "rotating, each due"}[outcome]
    return Row(
        f"`/refresh`, 64 clients, {engine}, {kind}, as a share of a bare POST",
        f"≥ {target:.2f}",
        f"{share:.2f} ({rounds.rate(found[outcome]):,.0f}/s of {rounds.rate(found['bare']):,.0f}/s)",
        share >= target,
    )
