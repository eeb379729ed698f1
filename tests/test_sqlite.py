"""Failures that only an embedded file can have: another program that locks it, and a full disk."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

import httpx
import pytest

from sessionapi.settings import Settings
from tests.support.api_client import PASSWORD, bearer, refusal
from tests.support.app import running
from tests.support.clock import FakeClock
from tests.support.server import serving
from tests.support.waiting import eventually
from tests.test_startup import mounted

PROVE = "SESSIONAPI_PROVE" in os.environ
HELD = 3 if PROVE else 0
"""Seconds that the other program holds the file at least; it does so until all reads have finished."""
HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""
pytestmark = [pytest.mark.server, pytest.mark.engines("sqlite"), pytest.mark.prove]


@asynccontextmanager
async def held(database: Path) -> AsyncIterator[None]:
    """Another process holds the write lock until the block ends, while the app goes on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLDER, str(database), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    yield
    process.stdin.close()
    await process.wait()


async def test_a_program_that_holds_the_file_delays_writes_and_no_read(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without busy_timeout, or without separate connections for reads."""
    settings = make_settings()
    body = {"username": "ada", "password": PASSWORD}
    async with running(settings, clock) as service:
        tokens = await service.sign_up()
        async with held(settings.data_dir / "sessionapi.db"):
            since = time.monotonic()
            writes = [asyncio.create_task(service.client.post("/login", json=body)) for _ in range(5)]
            for _ in range(50):
                assert (await service.get("/me", tokens)).status_code == 200
                assert (await service.refresh(tokens)).status_code == 200
            reads = time.monotonic() - since
            await asyncio.sleep(max(0, HELD - reads))
            assert not any(write.done() for write in writes)
            waited = time.monotonic() - since
        answers = await asyncio.gather(*writes)
        assert {answer.status_code for answer in answers} == {200}
        print(  # noqa: T201 - measured figures
            f"held for {waited:.1f} s: 5 writes delayed, none failed; 100 reads meanwhile in {reads:.2f} s"
        )


def test_a_full_disk_is_a_clear_503_harms_nothing_and_is_over_when_there_is_room(tmp_path: Path):
    """Fails if SQLite's `full` is taken for our defect: it would be a 500 with a traceback in the log."""
    with mounted(tmp_path / "disk", "size=600k") as disk:
        with serving(disk / "var", log_level="warning") as server, httpx.Client(timeout=60) as client:
            acknowledged = []

            def until_it_is_full() -> httpx.Response | None:
                name = f"user{len(acknowledged)}"
                body = {"username": name, "password": PASSWORD, "email": f"{'x' * 250}@example.com"}
                answer = client.post(f"{server.url}/signup", json=body)
                if answer.status_code == 201:
                    acknowledged.append((name, answer.json()))
                return None if answer.status_code == 201 else answer

            full = eventually(until_it_is_full, 120)
            assert refusal(full)[:2] == (503, "unavailable")
            assert int(full.headers["retry-after"]) >= 1
            door = {"url": f"{server.url}/protected", "headers": bearer(acknowledged[0][1])}
            assert client.get(**door).status_code == 200
            assert integrity(disk / "var/sessionapi.db") == "ok"
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
            assert until_it_is_full() is None
            for name, _ in acknowledged:
                body = {"username": name, "password": PASSWORD}
                assert client.post(f"{server.url}/login", json=body).status_code == 200
            assert client.get(f"{server.url}/readyz").status_code == 200
            print(f"full after {len(acknowledged) - 1} sign-ups: all of them log in")  # noqa: T201
        assert integrity(disk / "var/sessionapi.db") == "ok"
        log = server.log.read_text()
    assert "Traceback" not in log
    assert "full" in log or "disk I/O error" in log


def integrity(database: Path) -> str:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("pragma integrity_check").fetchone()[0]
