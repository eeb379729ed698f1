"""A fail-over of PostgreSQL under load, with the cluster of examples/postgres_ha.

It shows which clients are refused for how long, and what is lost. With a synchronous standby no acknowledged
write is lost, with an asynchronous one the writes of the last seconds are.
"""

import asyncio
import importlib.util
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionapi.storage import migrations
from tests.support.api_client import PASSWORD, crowded
from tests.support.server import serving
from tests.support.settings import SERVER_SECRET
from tests.support.waiting import eventually

CLIENTS = 500
LEAVERS = 100
"""The number of these clients that log out in the seconds before the fail-over."""
LATE = 5
"""Logins, and logouts, that reach the leader when it no longer reaches a standby."""
SCRIPT = Path(__file__).parents[1] / "examples" / "postgres_ha" / "cluster.py"
SETTINGS: dict[str, Any] = {
    "secret": SERVER_SECRET,
    "rotate_after": 10,
    "refresh_grace": 3,
    "database_timeout": 4,
}

pytestmark = [
    pytest.mark.prove,
    pytest.mark.server,
    pytest.mark.timeout(1_800),
    pytest.mark.skipif("SESSIONAPI_PROVE" not in os.environ, reason="installs Patroni: run by make prove"),
    pytest.mark.skipif(
        shutil.which("etcd") is None or not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")),
        reason="etcd or Debian's PostgreSQL is not installed",
    ),
]


def load_script() -> Any:
    spec = importlib.util.spec_from_file_location("postgres_ha", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["postgres_ha"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder that the nodes' user can read, with one Patroni for all clusters."""
    made = Path(tempfile.mkdtemp(prefix="ha-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextmanager
def cluster(folder: Path, *, synchronous: bool) -> Iterator[Any]:
    """Three nodes, as the script starts them."""
    script = load_script()
    name, port = ("synchronous", 16_000) if synchronous else ("asynchronous", 16_100)
    it = script.Cluster(folder / name, port)
    try:
        it.start(synchronous=synchronous)
        yield it
    finally:
        it.stop()


@dataclass
class Client:
    """One device, with its newest refresh token and the key that belongs to it."""

    wire: httpx.AsyncClient
    tokens: dict[str, Any]
    key: str = field(default_factory=lambda: os.urandom(16).hex())
    refused_since: float | None = None
    longest: float = 0.0
    refusals: int = 0
    last_success: float = 0.0
    lost: str | None = None

    async def live(self, stop: asyncio.Event) -> None:
        """Refresh twice a minute, and retry soon after a missing response."""
        pause = 2.0
        await asyncio.sleep(random.uniform(0, 30))  # so that their requests are spread over time
        while not stop.is_set() and self.lost is None:
            if await self.refresh():
                pause = 2.0
                await asyncio.sleep(random.uniform(20, 40))
            else:
                await asyncio.sleep(pause * random.uniform(0.5, 1))
                pause = min(2 * pause, 8)

    async def refresh(self) -> bool:
        body = {"refresh_token": self.tokens["refresh_token"]}
        answer = await send(self.wire, "/refresh", body, {"Idempotency-Key": self.key})
        now = time.monotonic()
        if answer is None:
            self.refusals += 1
            self.refused_since = self.refused_since or now
            return False
        if answer.status_code != 200:
            self.lost = f"{answer.status_code} {answer.json()['code']}"
            return True
        if self.refused_since is not None:
            self.longest = max(self.longest, now - self.refused_since)
        if answer.json()["generation"] != self.tokens["generation"]:
            self.key = os.urandom(16).hex()
        self.tokens, self.last_success, self.refused_since = answer.json(), now, None
        return True

    async def log_out(self) -> bool:
        """Log out, once; return whether it was acknowledged."""
        answer = await send(self.wire, "/logout", {"refresh_token": self.tokens["refresh_token"]})
        return answer is not None and answer.status_code == 204


async def send(
    wire: httpx.AsyncClient, path: str, body: dict[str, Any], headers: dict[str, str] | None = None
) -> httpx.Response | None:
    """Send a request; return None if no response came, or a 5xx."""
    try:
        answer = await wire.post(path, json=body, headers=headers)
    except httpx.TransportError:
        return None
    return None if answer.status_code >= 500 else answer


async def start(wire: httpx.AsyncClient, path: str, name: str) -> Client | None:
    answer = await send(wire, path, {"username": name, "password": PASSWORD})
    return Client(wire, answer.json()) if answer is not None and answer.is_success else None


async def insisted(act: Callable[[], Awaitable[bool]], few: asyncio.Semaphore) -> None:
    async with few:
        deadline = time.monotonic() + 120
        while not await act():
            assert time.monotonic() < deadline, "no server responds"
            await asyncio.sleep(0.3)


async def sign_everybody_up(wire: httpx.AsyncClient) -> list[Client]:
    """Sign up a few at a time. Passwords are hashed, so more at once would get a Retry-After."""
    few = asyncio.Semaphore(8)

    async def sign_up(name: str) -> Client:
        deadline = time.monotonic() + 120
        async with few:
            while (made := await start(wire, "/signup", name)) is None:
                assert time.monotonic() < deadline, "no user can sign up"
                await asyncio.sleep(0.3)
                name += "x"  # the first attempt may have succeeded
        return made

    return await asyncio.gather(*(sign_up(f"user{number}") for number in range(CLIENTS)))


def freeze_walsenders(it: Any, script: Any) -> None:
    """Stop the leader from sending to its standbys, as on a network that has just failed."""
    leader = it.leader()
    postmaster = int((it.folder / leader / "data/postmaster.pid").read_text().split()[0])
    for pid in script.children(postmaster):
        if b"walsender" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGSTOP)


@dataclass
class Outcome:
    """The effect of a fail-over on each group of clients."""

    stay: list[Client]
    left: list[Client]
    late_left: list[tuple[Client, bool]]
    late_began: list[Client]


async def fail_over(it: Any, url: str) -> Outcome:
    """Kill the leader under load; its standbys lack the last logins and logouts."""
    script = sys.modules["postgres_ha"]
    async with crowded(100, base_url=url, timeout=10) as wire:
        clients = await sign_everybody_up(wire)
        late, leavers, stay = clients[:LATE], clients[LATE:LEAVERS], clients[LEAVERS:]
        stop = asyncio.Event()
        lives = [asyncio.create_task(each.live(stop)) for each in stay]
        for start_at in range(0, len(leavers), 10):
            some = leavers[start_at : start_at + 10]
            assert all(await asyncio.gather(*(each.log_out() for each in some)))
        await asyncio.sleep(1)  # an asynchronous standby has these by now
        await asyncio.to_thread(freeze_walsenders, it, script)
        acknowledged = await asyncio.gather(*(each.log_out() for each in late))
        names = [each.tokens["user"]["username"] for each in stay[:LATE]]
        logins = await asyncio.gather(*(start(wire, "/login", name) for name in names))
        await asyncio.to_thread(it.kill_leader)
        killed_at = time.monotonic()  # a response during the crash proves nothing about the new leader
        await asyncio.to_thread(eventually, lambda: all(each.last_success > killed_at for each in stay), 180)
        stop.set()
        for life in lives:
            life.cancel()
        await asyncio.gather(*lives, return_exceptions=True)
        outcome = Outcome(
            stay,
            leavers,
            list(zip(late, acknowledged, strict=True)),
            [each for each in logins if each],
        )
        few = asyncio.Semaphore(8)
        everybody = [*stay, *leavers, *late, *outcome.late_began]
        await asyncio.gather(*(insisted(each.refresh, few) for each in everybody))
    return outcome


def told(outcome: Outcome, what: str) -> None:
    longest = max(each.longest for each in outcome.stay)
    refusals = sum(each.refusals for each in outcome.stay)
    print(  # noqa: T201 - measured figures
        f"{what} standby, {CLIENTS} clients: refused for {longest:.1f} s at the longest, {refusals} times; "
        f"{len(outcome.stay)} go on without logging in, {len(outcome.left)} logged out before and are; of "
        f"{LATE} logouts and {LATE} logins in the last moment {sum(done for _, done in outcome.late_left)} "
        f"and {len(outcome.late_began)} were acknowledged"
    )


@pytest.mark.parametrize("synchronous", [True, False], ids=["synchronous", "asynchronous"])
async def test_after_a_fail_over_everybody_goes_on_and_who_logged_out_is_out(folder: Path, synchronous: bool):
    """A synchronous cluster acknowledges only writes that its standby has.

    An asynchronous cluster acknowledges the others too, and then those logouts are undone and those logins
    unknown, as docs/operations.md describes.
    """
    with cluster(folder, synchronous=synchronous) as it:
        await migrations.migrate(it.url)
        data = folder / f"var{synchronous}"
        with serving(data, "--workers", "2", database_url=it.url, **SETTINGS) as server:
            outcome = await fail_over(it, server.url)
        told(outcome, "synchronous" if synchronous else "asynchronous")
        assert [each.lost for each in outcome.stay if each.lost] == []
        assert {each.lost for each in outcome.left} == {"401 session_revoked"}
        acknowledged = [done for _, done in outcome.late_left]
        if synchronous:
            assert (any(acknowledged), outcome.late_began) == (False, [])
        else:
            assert (all(acknowledged), len(outcome.late_began)) == (True, LATE)
            assert [each.lost for each, _ in outcome.late_left] == [None] * LATE
            assert {each.lost for each in outcome.late_began} == {"401 invalid_refresh_token"}
        it.start(synchronous=synchronous)  # brings the old leader back as a follower
