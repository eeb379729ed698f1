"""The load: Debian's wrk on a separate core. Only responses with 2xx count."""

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.processes import LOAD_CORE

CLIENTS = 64
LUA = Path(__file__).parent / "lua"
TIMEOUT = "60s"
"""Seconds that wrk waits for one response: longer than any run, so that a slow response is measured as slow.
"""

LONG = 3_600
"""Seconds for a run that ends by itself."""
ENDED = "ENDED\n"
"""The line that `bodies.lua` prints when each of its lines was posted once and got its response."""


class WrongAnswers(Exception):
    """A server responded with something other than 2xx, so that its speed would mean nothing."""


@dataclass(frozen=True)
class Measured:
    """One run. `load_share` is the share of a core that wrk itself took."""

    answers: int
    seconds: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    load_share: float

    @property
    def per_second(self) -> float:
        return self.answers / self.seconds


class Run:
    """A run of wrk in the background, until `result()` is called."""

    def __init__(
        self,
        url: str,
        seconds: float,
        *,
        clients: int = CLIENTS,
        headers: Mapping[str, str] | None = None,
        script: str = "report.lua",
        arguments: Sequence[str] = (),
        cores: str = LOAD_CORE,
    ) -> None:
        given = [f"-H{name}: {value}" for name, value in (headers or {}).items()]
        shape = ["-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "--timeout", TIMEOUT]
        command = ["taskset", "-c", cores, "wrk", *shape, *given, "-s", str(LUA / script), url]
        self._url = url
        self._popen = subprocess.Popen([*command, "--", *arguments], stdout=subprocess.PIPE, text=True)

    def result(self) -> Measured:
        """Wait for the end and return the measurements. Raises WrongAnswers if any response wasn't 2xx."""
        assert self._popen.stdout is not None
        lines = []
        with self._popen.stdout as output:
            for line in output:
                lines.append(line)
                if line == ENDED:
                    self._popen.send_signal(signal.SIGINT)  # wrk would wait until its time is over
        _, status, usage = os.wait4(self._popen.pid, 0)
        self._popen.returncode = os.waitstatus_to_exitcode(status)
        report = next((line for line in lines if line.startswith("REPORT ")), None)
        if self._popen.returncode or report is None:
            raise WrongAnswers(f"wrk failed at {self._url}: {''.join(lines)}")
        answers, microseconds, broken, refused, p50, p99, longest = map(int, report.split()[1:])
        if broken or refused or not answers:
            raise WrongAnswers(f"{self._url}: {answers} answers, {refused} not 2xx, {broken} failed")
        seconds = microseconds / 1e6
        spent = (usage.ru_utime + usage.ru_stime) / seconds
        return Measured(answers, seconds, p50 / 1e3, p99 / 1e3, longest / 1e3, spent)


def look(answer: httpx.Response, *members: str) -> dict[str, object]:
    """Return the JSON of a response whose route is about to be timed. Raises WrongAnswers if it isn't 2xx."""
    body = answer.json() if answer.is_success else {}
    if not set(members) <= set(body):
        raise WrongAnswers(f"{answer.url}: {answer.status_code} {answer.text[:300]}")
    return dict(body)


def ensure_wrk() -> None:
    """Install wrk where that is possible, and print one line about it."""
    if shutil.which("wrk"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        print("Installing for the benchmarks: wrk (apt-get install wrk)", flush=True)
        for step in (["update"], ["install", "-y", "--no-install-recommends", "wrk"]):
            subprocess.run(
                ["apt-get", *step], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            )
    if not shutil.which("wrk"):
        raise SystemExit("The benchmarks need wrk; on Debian: apt-get install wrk")
