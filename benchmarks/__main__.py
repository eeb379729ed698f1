"""`python -m benchmarks`: measure everything, print the table, write results.md and the charts."""

import argparse
import contextlib
import signal
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks import charts, postgresql, results
from benchmarks.load import ensure_wrk
from benchmarks.measures import (
    footprint,
    growth,
    login,
    peers,
    protected,
    refresh,
    size,
    storage,
    verifier,
    workers,
)
from benchmarks.plan import LARGE, QUICK, Plan

MEASURES = {
    "protected": protected,
    "peers": peers,
    "login": login,
    "refresh": refresh,
    "storage": storage,
    "verifier": verifier,
    "size": size,
    "growth": growth,
    "footprint": footprint,
    "workers": workers,
}


def main() -> None:
    """Run the measures in turn and print the results."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the started processes too
    ensure_wrk()
    found = results.Results()
    with tempfile.TemporaryDirectory(prefix="bench") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        address = "" if arguments.no_postgresql else stack.enter_context(postgresql.running(folder))
        plan = _plan(arguments, folder, address)
        for measure in arguments.only or MEASURES:
            Console(stderr=True).print(f"measuring: {measure}", style="dim")
            _try(measure, plan, found)
    results.show(found.rows, found.notes)
    if arguments.out:
        charts.write(arguments.out, found)
        command = " ".join(["python -m benchmarks", *sys.argv[1:]])
        page = "results-large.md" if arguments.large else "results.md"
        (arguments.out / page).write_text(results.markdown(found, command))


def _try(measure: str, plan: Plan, found: results.Results) -> None:
    """Run one measure. If it can't be taken, note the reason below the table and go on with the others."""
    try:
        MEASURES[measure].measure(plan, found)
    except Exception as problem:
        found.notes.append(f"{measure} could not be measured: {type(problem).__name__}: {problem}")


def _plan(arguments: argparse.Namespace, folder: Path, address: str) -> Plan:
    sizes = {**(LARGE if arguments.large else {}), **(QUICK if arguments.quick else {})}
    peers_wanted = bool(address) and not arguments.no_peers
    return Plan(folder, postgresql=address, peers=peers_wanted, **sizes)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="A second for each run: to see that it works.")
    parser.add_argument("--large", action="store_true", help="5 M sessions, 1 M refreshes, 100,000 logins.")
    parser.add_argument("--only", nargs="+", choices=MEASURES, help="Only these measures.")
    parser.add_argument("--no-peers", action="store_true", help="Without the peers.")
    parser.add_argument("--no-postgresql", action="store_true", help="Without PostgreSQL and the peers.")
    parser.add_argument("--out", type=Path, help="Folder for results.md and the charts.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
