"""Several processes on one folder agree: one secret, one key, one schema, and each of them answers."""

import fcntl
import os
import re
import signal
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import PASSWORD, bearer, eventually, serving

LOCKS = Path("/proc/locks")

pytestmark = pytest.mark.server


def workers_of(parent: int) -> list[int]:
    """Return the pids of the worker processes; multiprocessing's resource tracker is none."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


@contextmanager
def only(worker: int, workers: list[int]) -> Iterator[None]:
    """Halt all workers but one, so that whatever is answered comes from that one."""
    halted = [pid for pid in workers if pid != worker]
    for pid in halted:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in halted:
            os.kill(pid, signal.SIGCONT)


def assert_made_once(data: Path) -> None:
    """One secret, one key and one schema are in the folder, and no rest of a second try."""
    assert [path.name for path in data.glob("secret*")] == ["secret"]
    with sqlite3.connect(data / "sessionapi.db") as database:
        assert database.execute("SELECT state FROM signing_keys").fetchall() == [("active",)]
        assert database.execute("SELECT count(*) FROM alembic_version").fetchall() == [(1,)]


def test_four_workers_start_on_an_empty_folder_all_answer_and_all_stop(tmp_path: Path):
    """Each takes the others' tokens; fails without `ensure_active` in `wiring.prepare`, before they start."""
    with serving(tmp_path / "var", "--workers", "4") as server:

        def four_workers() -> list[int]:
            return found if len(found := workers_of(server.process.pid)) == 4 else []

        workers = eventually(four_workers)
        tokens = []
        for number, worker in enumerate(workers):
            with only(worker, workers):
                body = {"username": f"user{number}", "password": PASSWORD}
                answer = httpx.post(f"{server.url}/signup", json=body, timeout=30)
                assert answer.status_code == 201, answer.text
                tokens.append(answer.json())
                for made in tokens:
                    assert httpx.get(f"{server.url}/protected", headers=bearer(made)).status_code == 200
        assert_made_once(tmp_path / "var")
        assert workers_of(server.process.pid) == workers
        assert server.stop() == 0
        assert [pid for pid in workers if Path(f"/proc/{pid}").exists()] == []
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/healthz")
    assert "Traceback" not in server.log.read_text()


@pytest.mark.skipif(not LOCKS.exists(), reason="there is no /proc/locks, which tells who waits")
def test_two_servers_started_at_once_make_one_secret_and_one_key(tmp_path: Path):
    """Both wait at one line until they are let go; fails without `fcntl.flock` in `wiring._data_folder`."""
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
