"""Several processes on one folder share one secret, one key and one schema, and each of them responds."""

import fcntl
import functools
import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.support.api_client import PASSWORD, bearer
from tests.support.database import rows
from tests.support.server import Server, serving
from tests.support.settings import SERVER_SECRET
from tests.support.waiting import eventually

LOCKS = Path("/proc/locks")

pytestmark = [pytest.mark.server, pytest.mark.measured]


def workers_of(parent: int) -> list[int]:
    """Return the pids of the worker processes, without multiprocessing's resource tracker."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def halt(pid: int) -> bool:
    """Stop a process unless it holds a write lock, for which the other processes would wait in vain."""
    os.kill(pid, signal.SIGSTOP)

    def has_stopped() -> bool:
        threads = Path(f"/proc/{pid}/task").glob("*/stat")
        return all(thread.read_text().rpartition(") ")[2].startswith("T") for thread in threads)

    eventually(has_stopped)
    locks = LOCKS.read_text() if LOCKS.exists() else ""
    if re.search(rf" WRITE +{pid} ", locks):
        os.kill(pid, signal.SIGCONT)
        return False
    return True


@contextmanager
def only(worker: int, workers: list[int]) -> Iterator[None]:
    """Halt all workers except one, so that every response comes from that one."""
    halted = [pid for pid in workers if pid != worker]
    try:
        for pid in halted:
            eventually(functools.partial(halt, pid))
        yield
    finally:
        for pid in halted:
            os.kill(pid, signal.SIGCONT)


def assert_made_once(data: Path, url: str = "") -> None:
    """Assert that there are one secret, one key and one schema, and no leftovers of a second creation."""
    if not url:
        assert [path.name for path in data.glob("secret*")] == ["secret"]
    database = url or f"sqlite:///{data}/sessionapi.db"
    assert rows(database, "select state from signing_keys") == [("active",)]
    assert rows(database, "select count(*) from alembic_version") == [(1,)]


def all_workers(server: Server, number: int) -> list[int]:
    """Return the pids of the workers, as soon as there are that many."""

    def started() -> list[int]:
        return found if len(found := workers_of(server.process.pid)) == number else []

    return eventually(started)


def gone(pids: list[int]) -> bool:
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_workers_start_on_an_empty_database_all_answer_and_all_stop(tmp_path: Path, database_url: str):
    """Each accepts the others' tokens. Fails if `container.bootstrap` doesn't call `ensure_active` first."""
    own = {"database_url": database_url, "secret": SERVER_SECRET} if database_url else {}
    number = 2 if database_url else 4
    with serving(tmp_path / "var", "--workers", str(number), **own) as server:
        workers = all_workers(server, number)
        tokens = []
        for number, worker in enumerate(workers):
            with only(worker, workers):
                tokens.append(server.sign_up(f"user{number}"))
                for made in tokens:
                    assert server.get("/protected", made).status_code == 200
        assert_made_once(tmp_path / "var", database_url)
        assert workers_of(server.process.pid) == workers
        assert server.stop() == 0
        assert gone(workers)
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/healthz")
    assert "Traceback" not in server.log.read_text()


@pytest.mark.skipif(not LOCKS.exists(), reason="there is no /proc/locks, which tells who waits")
def test_two_servers_started_at_once_make_one_secret_and_one_key(tmp_path: Path):
    """Both wait at one line until released. Fails without `fcntl.flock` in `container._data_folder`."""
    data = tmp_path / "var"
    data.mkdir()
    lock = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    inode = os.fstat(lock).st_ino

    def both_wait() -> bool:
        return len(re.findall(rf"-> FLOCK .*:{inode} ", LOCKS.read_text())) == 2

    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        starts = [pool.submit(stack.enter_context, serving(data)) for _ in range(2)]
        try:
            eventually(both_wait)
            assert [path.name for path in data.iterdir()] == ["lock"]
        finally:
            os.close(lock)
        servers = [start.result() for start in starts]
        jwks = [httpx.get(f"{server.url}/.well-known/jwks.json").json() for server in servers]
        body = {"username": "ada", "password": PASSWORD}
        tokens = httpx.post(f"{servers[0].url}/signup", json=body).json()
        assert httpx.get(f"{servers[1].url}/protected", headers=bearer(tokens)).status_code == 200
        assert httpx.post(f"{servers[1].url}/login", json=body).status_code == 200
    assert len(jwks[0]["keys"]) == 1
    assert jwks[0] == jwks[1]
    assert_made_once(data)


def test_the_metrics_of_any_worker_are_those_of_all_also_after_one_has_died(tmp_path: Path):
    """Fails without MultiProcessCollector in Metrics.render, or without a folder where the workers count."""
    with serving(tmp_path / "var", "--workers", "2", metrics="on") as server:
        workers = all_workers(server, 2)
        for worker in reversed(workers):  # their parent checks them in order, and waits for a halted one
            with only(worker, workers):
                for _ in range(3):
                    assert httpx.get(f"{server.url}/healthz", timeout=30).status_code == 200
        six = 'sessionapi_requests_total{method="GET",route="/healthz",status="200"} 6.0'
        # A request is counted shortly after its client has the response.
        eventually(lambda: six in httpx.get(f"{server.url}/metrics", timeout=30).text)
        os.kill(workers[0], signal.SIGKILL)
        eventually(lambda: gone(workers[:1]))
        replaced = all_workers(server, 2)
        for worker in replaced:
            with only(worker, replaced):
                told = httpx.get(f"{server.url}/metrics", timeout=30).text
            assert six in told
            assert "sessionapi_password_hash_queue 0.0" in told


def test_workers_end_when_their_parent_is_killed(tmp_path: Path):
    """Fails without the watch on the parent's sentinel: they would hold the port for as long as they run."""
    with serving(tmp_path / "var", "--workers", "2") as server:
        workers = all_workers(server, 2)
        for worker in workers:
            with only(worker, workers):
                assert httpx.get(f"{server.url}/readyz", timeout=30).status_code == 200
        server.process.kill()
        server.process.wait(10)
        eventually(lambda: gone(workers))
        url = httpx.URL(server.url)
        with socket.create_server((url.host, url.port or 0)):
            pass


def test_a_server_that_stops_says_so_first_and_ends_what_is_under_way(tmp_path: Path):
    """Fails without `leaving` in Container.check_ready, or if SIGTERM closes the socket at once."""
    slow = {"hash_memory_kib": 65_536, "hash_time": 12, "stop_delay": 2}
    with (
        serving(tmp_path / "var", "--workers", "2", metrics="on", **slow) as server,
        ThreadPoolExecutor(1) as pool,
        httpx.Client(base_url=server.url, timeout=60) as client,
    ):
        body = {"username": "ada", "password": PASSWORD}
        answer = pool.submit(httpx.post, f"{server.url}/signup", json=body, timeout=60)
        eventually(lambda: "sessionapi_password_hash_queue 1.0" in client.get("/metrics").text)
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["detail"] == "This process is stopping."
        assert client.get("/healthz").status_code == 200
        assert answer.result().status_code == 201
        assert server.process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/healthz")
    assert "Traceback" not in server.log.read_text()
