"""A profile by py-spy under load: `python -m benchmarks.profile protected|refresh|rotate|login`.

It prints the functions in which the service spends most time, both in the function alone (self) and with the
functions that it calls (total). It leaves the stacks in a file that speedscope and the flame graph tools
read.
"""

import argparse
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import service
from benchmarks.environments import PY_SPY, python_environment
from benchmarks.load import CLIENTS, Run, ensure_wrk
from benchmarks.workloads import Workload, login, protected, renew, rotate

ROWS = 60
ENTRY = "RequestResponseCycle.run_asgi"
"""The functions in which a request begins. Their callers are in every stack, so they carry no information."""
OWNERS = {
    "uvicorn, asyncio": "uvicorn|httptools|uvloop|asyncio",
    "signature": r"jwt/|cryptography|sessionapi/tokens/access_token\.py",
    "SQLAlchemy, driver, rows": "sqlalchemy|aiosqlite|asyncpg|greenlet|sessionapi/storage",
    "log line, metrics, headers": r"structlog|prometheus|sessionapi/(logging|metrics|web/middleware)\.py",
    "framework": "starlette|fastapi|pydantic",
    "our own Python": "sessionapi",
    "standard library, hash pool": "",
}
"""The owner of a function's code: the first one whose pattern matches the function's file."""
SECONDS = 10
WORKLOADS = {"protected": protected, "refresh": renew, "rotate": rotate, "login": login}


def main() -> None:
    """Profile one route and print the table."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the started processes too
    ensure_wrk()
    spy = python_environment("py-spy", PY_SPY) / "bin" / "py-spy"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = service.settings_of(folder)
        service.prepare(settings)
        with service.running(folder) as process:
            workload = WORKLOADS[arguments.route](process.url, folder, settings)
            stacks = _record(spy, process.pid, workload, arguments.seconds)
    Path(arguments.out).write_text(stacks)
    _print(stacks, arguments.route)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("route", choices=WORKLOADS)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--out", default="profile.folded", help="The file for the stacks.")
    return parser.parse_args()


def _record(spy: Path, pid: int, workload: Workload, seconds: int) -> str:
    """Return the folded stacks of a process under load: a line for each stack, with its samples."""
    load = Run(**workload.arguments, seconds=seconds + 2, clients=CLIENTS)
    command = [spy, "record", "--pid", str(pid), "--duration", str(seconds), "--rate", "250"]
    with tempfile.NamedTemporaryFile("r") as output:
        subprocess.run(
            [*command, "--gil", "--nonblocking", "--format", "raw", "--output", output.name],
            check=True,
            capture_output=True,
        )
        measured = load.result()
        print(f"{measured.per_second:.0f} answers/s under the profiler", file=sys.stderr)
        return output.read()


def _print(stacks: str, route: str) -> None:
    own, total = _count(stacks)
    samples = sum(own.values())
    table = Table("self", "total", "function", title=f"{route}: {samples} samples")
    for name, count in own.most_common(ROWS):
        table.add_row(f"{count / samples:.1%}", f"{total[name] / samples:.1%}", name)
    console = Console(width=110)
    console.print(table)
    inclusive = Table("total", "self", "function", title=f"{route}: by what they call too")
    for name, count in total.most_common(ROWS):
        inclusive.add_row(f"{count / samples:.1%}", f"{own[name] / samples:.1%}", name)
    console.print(inclusive)
    whose = Table("self", "whose code", title=f"{route}: by whose code it is")
    for owner, count in _by_owner(own).most_common():
        whose.add_row(f"{count / samples:.0%}", owner)
    console.print(whose)


def _by_owner(own: Counter[str]) -> Counter[str]:
    found: Counter[str] = Counter()
    for name, count in own.items():
        found[next(owner for owner, pattern in OWNERS.items() if re.search(pattern, name))] += count
    return found


def _count(stacks: str) -> tuple[Counter[str], Counter[str]]:
    """Return (samples in each function alone, samples in each with the functions that it calls)."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, count = line.rsplit(" ", 1)
        frames = [re.sub(r":\d+\)$", ")", frame) for frame in stack.split(";")]
        begin = next((at for at, frame in enumerate(frames) if frame.startswith(ENTRY)), len(frames) - 1)
        own[frames[-1]] += int(count)
        for frame in set(frames[begin:]):
            total[frame] += int(count)
    return own, total


if __name__ == "__main__":
    main()
