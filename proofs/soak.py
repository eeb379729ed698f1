"""A long run at half load: memory must be flat, no request refused. `python -m proofs.soak --minutes 20`.

For 15 s it measures how many requests a second this machine can do, with the load on the same machine. Then
it sends half as many: three of four are /protected, the others refreshes, and some logins and logouts. The
measurements are drawn into docs/soak.svg. It ends with status 1 if there was an error or memory grew.
"""

import argparse
import asyncio
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean, quantiles
from urllib.parse import urlsplit

from proofs.chart import Panel, svg
from sessionapi.storage import migrations
from tests.support.api_client import PASSWORD
from tests.support.server import serving
from tests.support.settings import SERVER_SECRET

SESSIONS = 200
CONNECTIONS = 16
SAMPLE = 5.0
"""Seconds between two samples of the processes."""
GROWTH = 0.05
"""How much more memory the last quarter may use than the second one. The first quarter is the warm-up."""
CHART = Path(__file__).parents[1] / "docs" / "soak.svg"


class Wire:
    """One connection that stays open, because httpx would need more of the machine than the service does."""

    def __init__(self, url: str) -> None:
        self._where = urlsplit(url)

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection(self._where.hostname, self._where.port)

    async def send(self, method: str, path: str, body: object = None, token: str = "") -> tuple[int, bytes]:
        sent = json.dumps(body).encode() if body is not None else b""
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._where.netloc}", f"Content-Length: {len(sent)}"]
        lines += ["Content-Type: application/json"] if sent else []
        lines += [f"Authorization: Bearer {token}"] if token else []
        self._writer.write("\r\n".join([*lines, "", ""]).encode() + sent)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        return int(head.split(b" ", 2)[1]), await self._reader.readexactly(length)

    def close(self) -> None:
        self._writer.close()


@dataclass
class Held:
    """A session of the load, and the time at which its access token arrived."""

    name: str
    tokens: dict[str, str]
    since: float


@dataclass
class Sample:
    """One sample."""

    minute: float
    megabytes: dict[str, float]
    files: int
    rate: float
    errors: int
    p50: float
    p99: float


@dataclass
class Load:
    """Requests at a fixed rate a second, or as fast as possible."""

    url: str
    rate: float = 0.0
    sessions: list[Held] = field(default_factory=list)
    answers: Counter[int] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    milliseconds: list[float] = field(default_factory=list)

    async def fill(self) -> None:
        """Sign up all users."""
        wire = Wire(self.url)
        await wire.open()
        for _ in range(SESSIONS):
            await self._begin(wire, f"u{os.urandom(6).hex()}", "/signup")
        wire.close()

    async def run(self, seconds: float) -> float:
        """Send for the given seconds, and return how many requests a second succeeded."""
        began, before = time.monotonic(), self.answers.total()
        until = began + seconds
        await asyncio.gather(*(self._connection(number, until) for number in range(CONNECTIONS)))
        return (self.answers.total() - before) / (time.monotonic() - began)

    async def _connection(self, number: int, until: float) -> None:
        wire = Wire(self.url)
        await wire.open()
        pause = CONNECTIONS / self.rate if self.rate else 0.0
        due = time.monotonic() + pause * number / CONNECTIONS
        while time.monotonic() < until:
            if pause:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = max(due + pause, time.monotonic() - pause)
            await self._step(wire)
        wire.close()

    async def _step(self, wire: Wire) -> None:
        held = self.sessions.pop(random.randrange(len(self.sessions)))  # no other task has it then
        dice = random.random()
        if dice < 0.005:
            await self._expect(wire, 204, "POST", "/logout", {"refresh_token": held.tokens["refresh_token"]})
            await self._begin(wire, held.name, "/login")
            return
        if dice < 0.25 or time.monotonic() - held.since > 50:
            answer = await self._expect(
                wire, 200, "POST", "/refresh", {"refresh_token": held.tokens["refresh_token"]}
            )
            held = Held(held.name, json.loads(answer), time.monotonic()) if answer else held
        else:
            await self._expect(wire, 200, "GET", "/protected", token=held.tokens["access_token"])
        self.sessions.append(held)

    async def _begin(self, wire: Wire, name: str, path: str) -> None:
        status = {"/signup": 201, "/login": 200}[path]
        answer = await self._expect(wire, status, "POST", path, {"username": name, "password": PASSWORD})
        if answer:
            self.sessions.append(Held(name, json.loads(answer), time.monotonic()))

    async def _expect(
        self, wire: Wire, wanted: int, method: str, path: str, body: object = None, token: str = ""
    ) -> bytes:
        began = time.perf_counter()
        status, answer = await wire.send(method, path, body, token)
        self.milliseconds.append((time.perf_counter() - began) * 1000)
        self.answers[status] += 1
        if status != wanted:
            self.errors.append(f"{method} {path}: {status} {answer.decode()[:200]}")
            return b""
        return answer


def processes(parent: int) -> list[int]:
    """Return the server and its workers."""
    return [parent, *map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split())]


def megabytes(pid: int) -> float:
    """Return the memory that a process uses, with its share of the memory that several use."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(rollup.partition("\nPss:")[2].split()[0]) / 1024


async def watch(load: Load, parent: int, until: float, samples: list[Sample]) -> None:
    """Sample the processes every few seconds."""
    began = time.monotonic()
    while time.monotonic() < until:
        before, moment = load.answers.total(), time.monotonic()
        await asyncio.sleep(SAMPLE)
        seen, load.milliseconds = load.milliseconds or [0.0, 0.0], []
        cut = quantiles(seen, n=100) if len(seen) > 1 else [0.0] * 99
        pids = processes(parent)
        samples.append(
            Sample(
                (time.monotonic() - began) / 60,
                {f"process {number}": megabytes(pid) for number, pid in enumerate(pids, 1)},
                sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids),
                (load.answers.total() - before) / (time.monotonic() - moment),
                len(load.errors),
                cut[49],
                cut[98],
            )
        )


def growth(samples: Sequence[Sample]) -> float:
    """Return the growth of memory from the second quarter to the last one, as a fraction."""
    sums = [sum(sample.megabytes.values()) for sample in samples]
    quarter = len(sums) // 4
    early, late = mean(sums[quarter : 2 * quarter]), mean(sums[-quarter:])
    return late / early - 1


def draw(samples: Sequence[Sample], title: str, notes: Sequence[str]) -> None:
    """Write the chart."""
    names = dict.fromkeys(name for sample in samples for name in sample.megabytes)
    memory = {
        name: [(each.minute, each.megabytes[name]) for each in samples if name in each.megabytes]
        for name in names
    }
    panels = [
        Panel("Memory (Pss, MB)", memory),
        Panel(
            "Answer time (ms)",
            {
                "p50": [(each.minute, each.p50) for each in samples],
                "p99": [(each.minute, each.p99) for each in samples],
            },
        ),
        Panel("Requests a second", {"answered": [(each.minute, each.rate) for each in samples]}),
        Panel(
            "Open files, errors in all",
            {
                "files": [(each.minute, each.files) for each in samples],
                "errors": [(each.minute, each.errors) for each in samples],
            },
        ),
    ]
    CHART.write_text(svg(title, notes, panels))


async def soak(url: str, parent: int, minutes: float, title: str) -> bool:
    """Run, print and draw; return whether memory was flat and no request was refused."""
    load = Load(url)
    await load.fill()
    load.rate = await load.run(15) / 2
    print(f"{load.rate * 2:.0f} requests a second at full load; half of it for {minutes:g} minutes")  # noqa: T201
    load.errors.clear()
    load.answers.clear()
    load.milliseconds.clear()
    samples: list[Sample] = []
    until = time.monotonic() + minutes * 60
    await asyncio.gather(load.run(minutes * 60), watch(load, parent, until, samples))
    grown = growth(samples)
    usual = sorted(sample.p99 for sample in samples)[len(samples) // 2]
    notes = [
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores with the load on them too, Python "
        f"{platform.python_version()}; half of {load.rate * 2:.0f} requests a second",
        f"{load.answers.total()} requests, {len(load.errors)} errors; memory of the last quarter against the "
        f"second: {grown:+.1%}; p99 of the usual 5 s: {usual:.0f} ms",
    ]
    draw(samples, title, notes)
    print("\n".join([*notes, *load.errors[:5], f"chart: {CHART}"]))  # noqa: T201
    return not load.errors and grown < GROWTH


def main() -> int:
    """Start a new service, and soak it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--database-url", default="", help="a PostgreSQL; without it an SQLite file")
    given = parser.parse_args()
    where: dict[str, str] = {}
    if given.database_url:
        asyncio.run(migrations.migrate(given.database_url))
        where = {"database_url": given.database_url, "secret": SERVER_SECRET}
    fast = {"rotate_after": 30, "hash_memory_kib": 19_456, "hash_time": 2, "log_level": "warning"}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "var"
        with serving(data, "--workers", str(given.workers), **fast, **where) as server:
            engine = "PostgreSQL" if given.database_url else "SQLite"
            title = f"{given.minutes:g} min at half load, {given.workers} worker(s), {engine}"
            well = asyncio.run(soak(server.url, server.process.pid, given.minutes, title))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
