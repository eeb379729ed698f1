"""Floods of connections, with the server on one core. Memory stays bounded, and honest users are served.

Under SESSIONAPI_PROVE the floods have their full size; `-s` prints memory and latency of each flood. The
flood runs in a separate process, and opens a new connection for each that the server closes.
"""

import os
import re
import resource
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.api_client import bearer
from tests.support.flood import FLOODS, GET, LOGIN, MANY, READY, SIGNED_IN
from tests.support.raw import Connection, request
from tests.support.server import Server, serving
from tests.support.waiting import eventually

PROVE = "SESSIONAPI_PROVE" in os.environ
SECONDS = 20 if PROVE else 2
FILES = 1024 if PROVE else 256
"""The soft limit of open files with which most systems start a process; less in the short form."""
MOST_GROWTH = 150
"""MB by which the server may grow. The flood of queued requests took 3.2 GB before they were bounded."""
ANOTHER = "127.0.2.1"
"""An IP address without a flood, because connections of one address give way to each other."""
USERS = 12 if PROVE else 2
LOGINS_EACH = 10
MOST_WAIT = 3
"""Maximum seconds of the median login, on a core that another process of the tests may use too."""
CORE = str(min(os.sched_getaffinity(0)))
ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.server, pytest.mark.prove, pytest.mark.timeout(900)]


@contextmanager
def flooded(kind: str, server: Server) -> Iterator[None]:
    host, port = server.url.removeprefix("http://").split(":")
    command = [sys.executable, "-m", "tests.support.flood", kind, host, port]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"{READY}\n"
            yield
        finally:
            process.send_signal(signal.SIGKILL)


def megabytes(server: Server, name: str) -> float:
    """Return the memory of a server: `VmRSS` is the current value, `VmHWM` the highest so far."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(rf"{name}:\s+(\d+)", status)[0]) / 1024


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


Work = tuple[list[float], list[float]]
"""Seconds of each login, and of each read of /protected."""


def work(server: Server, seconds: float) -> Work:
    """Log in and read /protected on the same connection, repeatedly, and return the time of each."""
    began = time.perf_counter()
    logins: list[float] = []
    reads: list[float] = []
    while time.perf_counter() - began < seconds or len(logins) < 3:
        log_in_and_read(server, LOGIN, ANOTHER, logins, reads)
    return logins, reads


def work_of_many(server: Server, users: int) -> Work:
    """Measure users that each log in as often as the limits allow, from separate IP addresses."""
    logins: list[float] = []
    reads: list[float] = []
    for number in range(users):
        address, body = f"127.0.1.{number + 1}", LOGIN.replace(b"ada", b"user%d" % number)
        with Connection(server.url, source=address) as connection:
            assert connection.send(request("POST", "/signup", body)).read().status == 201
        for _ in range(LOGINS_EACH):
            log_in_and_read(server, body, address, logins, reads)
    return logins, reads


def log_in_and_read(
    server: Server, body: bytes, address: str, logins: list[float], reads: list[float]
) -> None:
    with Connection(server.url, source=address) as connection:
        start = time.perf_counter()
        answer = connection.send(request("POST", "/login", body)).read()
        assert answer.status == 200, answer
        logins.append(time.perf_counter() - start)
        (name, value) = next(iter(bearer(answer.json()).items()))
        for _ in range(5):
            start = time.perf_counter()
            assert connection.send(request("GET", "/protected", b"", f"{name}: {value}")).read().status == 200
            reads.append(time.perf_counter() - start)


def shown(seconds: list[float]) -> str:
    p99 = sorted(seconds)[int(len(seconds) * 0.99)]
    return f"{statistics.median(seconds) * 1000:7.1f} {p99 * 1000:8.1f} {max(seconds) * 1000:8.1f}"


def report(kind: str, before: float, growth: float, quiet: Work, during: Work) -> None:
    print(  # noqa: T201
        f"\n{kind:24} memory {before:.0f} MB + {growth:.0f} MB; ms (median, p99, longest):"
        f"\n  quiet     login {shown(quiet[0])}   /protected {shown(quiet[1])}"
        f"\n  during    login {shown(during[0])}   /protected {shown(during[1])}"
    )


@contextmanager
def on_one_core(folder: Path, **settings: object) -> Iterator[Server]:
    """Run a server on one core. It may open as many files as on most systems, unless it raises its limit."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    program = f"import os, resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, ({FILES}, {hard}))"
    prefix = ("taskset", "-c", CORE, sys.executable, "-c", f"{program}; os.execv(sys.argv[1], sys.argv[1:])")
    with serving(folder / "var", prefix=prefix, log_level="warning", **settings) as server:
        server.sign_up()
        yield server


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_takes_bounded_memory_and_honest_users_are_served(tmp_path: Path, kind: str):
    """Fails without MAX_QUEUED, `time_out`, `_raise_open_files_limit` or MAX_OVERHEAD, each by its flood."""
    with on_one_core(tmp_path, sessions_per_user=1000) as server:  # the flood logs in as ada too
        quiet = work(server, SECONDS / 4)
        before = megabytes(server, "VmRSS")
        with flooded(kind, server):
            logins, reads = work(server, SECONDS)
        growth = megabytes(server, "VmHWM") - before
        report(kind, before, growth, quiet, (logins, reads))
        assert growth < MOST_GROWTH


@pytest.mark.parametrize("kind", SIGNED_IN)
def test_a_flood_that_is_refused_leaves_room_for_others(tmp_path: Path, kind: str):
    """Fails without `Throttle.slow_down`: cheap refusals filled the event loop, and logins were shed."""
    hashing = {"hash_memory_kib": 19_456, "hash_time": 2} if PROVE else {}
    with on_one_core(tmp_path, throttle="on", sessions_per_user=10, **hashing) as server:
        quiet = work(server, 0.1)
        before = megabytes(server, "VmRSS")
        with flooded(kind, server):
            logins, reads = work_of_many(server, USERS)
        growth = megabytes(server, "VmHWM") - before
        report(kind, before, growth, quiet, (logins, reads))
        assert growth < MOST_GROWTH
        assert statistics.median(logins) < MOST_WAIT


def test_connections_that_send_nothing_more_are_closed_and_leave_no_memory(tmp_path: Path):
    """Fails without `time_out`: the server waited indefinitely after half a head, half a body or nothing."""
    with on_one_core(tmp_path, head_timeout=1, body_timeout=1) as server, ExitStack() as open_ones:
        before = descriptors(server)
        for number in range(MANY):
            connection = open_ones.enter_context(Connection(server.url))
            connection.send((b"", b"G", GET[:30], request("POST", "/login", LOGIN)[:-5])[number % 4])
        assert server.log_in()["user"]["username"] == "ada"
        eventually(lambda: descriptors(server) <= before + 2, 60)
