"""PostgreSQL is unavailable: frozen, killed, or full of locks.

Requests that need it are refused quickly, and all others go on.
"""

import asyncio
import json
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
import pytest
import sqlalchemy as sa

from sessionapi.settings import Settings
from sessionapi.storage.tables import users
from tests.support import postgres
from tests.support.api_client import PASSWORD, AsyncApiClient, bearer, crowded, refusal
from tests.support.app import running
from tests.support.clock import FakeClock
from tests.support.postgres import Cluster
from tests.support.server import serving
from tests.support.settings import SERVER_SECRET

PROVE = "SESSIONAPI_PROVE" in os.environ
SECONDS, CLIENTS, PACE = (30, 100, 0.5) if PROVE else (5, 10, 0.3)
"""Seconds for which the server is frozen, the number of clients during that time, and the pause of each."""
pytestmark = [
    pytest.mark.server,
    pytest.mark.engines("postgresql"),
    pytest.mark.prove,
    pytest.mark.timeout(600),
]


@dataclass
class Answers:
    """The responses that clients received, and the time that each took."""

    told: list[tuple[float, int, str]] = field(default_factory=list)

    async def ask(self, client: httpx.AsyncClient, method: str, path: str, **more: object) -> httpx.Response:
        began = time.monotonic()
        answer = await client.request(method, path, **more)
        self.told.append((time.monotonic() - began, answer.status_code, answer.text))
        return answer

    @property
    def statuses(self) -> set[int]:
        return {status for _, status, _ in self.told}

    @property
    def median(self) -> float:
        return statistics.median(seconds for seconds, _, _ in self.told)


@asynccontextmanager
async def served(tmp_path: Path, url: str, **settings: object) -> AsyncIterator[httpx.AsyncClient]:
    own = {"database_url": url, "secret": SERVER_SECRET, "log_format": "json", "database_timeout": 1.5}
    with serving(tmp_path / "var", **{**own, **settings}) as server:
        async with crowded(2 * CLIENTS + 10, base_url=server.url) as client:
            yield client


def seconds_of_refusals(log: Path) -> list[float]:
    """Return the server's time for each 503, from its log, because the clients also wait for a core."""
    lines = (json.loads(line) for line in log.read_text().splitlines() if '"status":503' in line)
    return [line["ms"] / 1000 for line in lines]


async def repeat(seconds: float, pace: float, act: Callable[[], object]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        await act()
        await asyncio.sleep(pace)


async def recovered(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(30):
        while (await client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.05)


async def test_while_postgresql_is_frozen_what_needs_it_is_refused_and_the_rest_goes_on(
    tmp_path: Path, cluster: Cluster, database_url: str
):
    """Fails without the deadline of transactions (it hangs), or without CircuitBreaker."""
    async with served(tmp_path, database_url) as client:
        sign_up = AsyncApiClient(client.request).sign_up
        held = await asyncio.gather(*(sign_up(f"user{number}") for number in range(CLIENTS)))
        before, during, refused = Answers(), Answers(), Answers()

        async def protected(answers: Answers) -> None:
            await answers.ask(client, "GET", "/protected", headers=bearer(held[0]))
            await answers.ask(client, "GET", "/healthz")

        async def renew(tokens: dict) -> None:
            body = {"refresh_token": tokens["refresh_token"]}
            answer = await refused.ask(client, "POST", "/refresh", json=body)
            assert refusal(answer)[:2] == (503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1

        await repeat(SECONDS / 5, 0.02, lambda: protected(before))
        cluster.freeze()
        try:
            await asyncio.gather(
                repeat(SECONDS, 0.02, lambda: protected(during)),
                *(repeat(SECONDS, PACE, lambda tokens=tokens: renew(tokens)) for tokens in held),
            )
            assert refusal(await client.get("/readyz"))[:2] == (503, "unavailable")
        finally:
            cluster.thaw()
        await recovered(client)
        for tokens in held:
            answer = await client.post("/refresh", json={"refresh_token": tokens["refresh_token"]})
            assert answer.status_code == 200, answer.text
        assert (before.statuses, during.statuses, refused.statuses) == ({200}, {200}, {503})
        took = seconds_of_refusals(tmp_path / "var.log")
        at_once = sum(seconds < 0.1 for seconds in took)
        assert at_once > len(took) / 2
        assert connections(database_url) <= 10
        print(  # noqa: T201 - measured figures
            f"frozen for {SECONDS} s: {len(refused.told)} refusals, the slowest after "
            f"{max(took):.2f} s, {at_once} at once; /protected and /healthz median "
            f"{1000 * before.median:.1f} ms before, {1000 * during.median:.1f} ms during "
            f"(x {during.median / before.median:.2f})"
        )
        assert not PROVE or (max(took) <= 2 and during.median <= 1.5 * before.median)


def connections(url: str) -> int:
    """Return how many connections to PostgreSQL the servers have."""
    query = "select count(*) from pg_stat_activity where application_name = 'sessionapi'"
    return postgres.fetch(url, query)[0][0]


async def test_a_postgresql_that_crashes_and_comes_back_is_found_again(
    tmp_path: Path, cluster: Cluster, database_url: str
):
    """Fails without the handler of closed connections, with one error for each that the pool still holds."""
    async with served(tmp_path, database_url) as client:
        tokens = await AsyncApiClient(client.request).sign_up()
        await asyncio.gather(*(client.get("/me", headers=bearer(tokens)) for _ in range(20)))
        cluster.stop(signal.SIGQUIT)
        try:
            for _ in range(5):
                answer = await client.post("/login", json={"username": "ada", "password": PASSWORD})
                assert refusal(answer)[:2] == (503, "unavailable")
            assert (await client.get("/protected", headers=bearer(tokens))).status_code == 200
        finally:
            cluster.start()
        await recovered(client)
        answers = await asyncio.gather(*(client.get("/me", headers=bearer(tokens)) for _ in range(20)))
        assert {answer.status_code for answer in answers} == {200}


async def test_a_row_that_connection_holds_delays_and_refuses_only_who_needs_it(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without statement_timeout: the server would count as unreachable, and all requests be refused."""
    async with running(make_settings(database_timeout=1.5), clock) as service:
        ada, bob = await service.sign_up("ada"), await service.sign_up("bob")
        connection = await asyncpg.connect(service.container.settings.effective_database_url)
        async with connection.transaction():
            await connection.execute("SELECT 1 FROM users WHERE username = 'ada' FOR UPDATE")
            login = {"username": "ada", "password": PASSWORD}
            refused = asyncio.create_task(service.client.post("/login", json=login))
            while not refused.done():
                assert (await service.get("/me", bob)).status_code == 200
            assert refusal(await refused)[:2] == (503, "unavailable")
        await connection.close()
        assert (await service.get("/me", ada)).status_code == 200
        assert await service.log_in("ada")


async def test_a_commit_that_is_not_confirmed_is_not_called_undone(
    make_settings: Callable[..., Settings], clock: FakeClock, cluster: Cluster
):
    """Fails without Watch.commits: the response would claim that nothing was changed."""
    async with running(make_settings(database_timeout=1), clock) as service:
        await service.sign_up()
        with pytest.raises(Exception, match="Check whether it was done"):
            async with service.container.store.begin() as tx:
                await tx.connection.execute(sa.update(users).values(email="ada@example.com"))
                cluster.freeze()
        cluster.thaw()
