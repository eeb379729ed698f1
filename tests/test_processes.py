"""The races of test_races.py with real server processes, which meet in the same rows of one PostgreSQL.

They share nothing but the database. PostgreSQL's statistics show whether any two of them were in a deadlock.
"""

import asyncio
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import postgres
from tests.support.api_client import PASSWORD, AsyncApiClient, crowded, refusal
from tests.support.server import serving
from tests.support.settings import SERVER_SECRET

PROVE = "SESSIONAPI_PROVE" in os.environ
PROCESSES, ROUNDS, USERS = (4, 15, 20) if PROVE else (2, 2, 4)
LIMIT = 3
"""Active sessions that a user may have here."""
DUE = 6
"""Seconds from one rotation to the next. A third of it is the grace, within which a burst must finish."""
pytestmark = [
    pytest.mark.server,
    pytest.mark.engines("postgresql"),
    pytest.mark.prove,
    pytest.mark.timeout(900),
]


@dataclass
class Processes:
    """The URLs of the servers, and of their database."""

    urls: list[str]
    database: str

    def deadlocks(self) -> int:
        query = "select deadlocks from pg_stat_database where datname = current_database()"
        return postgres.fetch(self.database, query)[0][0]


@pytest.fixture
def processes(tmp_path: Path, database_url: str) -> Iterator[Processes]:
    own = {
        "database_url": database_url,
        "secret": SERVER_SECRET,
        "refresh_grace": DUE // 3,
        "rotate_after": DUE,
        "sessions_per_user": LIMIT,
        "log_level": "warning",
    }

    def start(number: int) -> str:
        return stack.enter_context(serving(tmp_path / f"var{number}", **own)).url

    with ExitStack() as stack, ThreadPoolExecutor(PROCESSES) as pool:
        yield Processes(list(pool.map(start, range(PROCESSES))), database_url)


@pytest.fixture
async def clients(processes: Processes) -> AsyncIterator[list[AsyncApiClient]]:
    """A client of each process."""
    async with crowded(100, kept=0) as it:  # the server closes idle ones
        yield [AsyncApiClient(it.request, url) for url in processes.urls]


async def everywhere(
    clients: list[AsyncApiClient], act: Callable[[AsyncApiClient], Awaitable[Any]], times: int = 2
) -> list:
    """Call a function for every process at once."""
    return await asyncio.gather(*(act(client) for client in clients * times))


async def test_a_token_has_one_successor_and_an_ending_wins_wherever_they_meet(
    processes: Processes, clients: list[AsyncApiClient]
):
    """Fails without the generation, or the condition on active sessions, in the statements of a refresh."""
    dice, rotations, endings = random.Random(7), 0, 0
    held = {}
    for number in range(USERS):
        signed_up = await clients[number % PROCESSES].sign_up(f"user{number}")
        held[f"user{number}"] = (signed_up["refresh_token"], 0)
    due = time.monotonic() + DUE
    a_few = asyncio.Semaphore(3)

    async def rotate(user: str) -> None:
        token, generation = held[user]
        async with a_few:
            answers = await everywhere(clients, lambda client: client.refresh(token))
        assert {answer.status_code for answer in answers} == {200}, [answer.text for answer in answers]
        assert {answer.json()["generation"] for answer in answers} == {generation + 1}
        assert len({answer.json()["refresh_token"] for answer in answers}) == 1
        held[user] = (answers[0].json()["refresh_token"], generation + 1)

    async def end(user: str) -> None:
        token, _ = held[user]

        async def one(client: AsyncApiClient) -> None:
            await asyncio.sleep(dice.random() / 100)
            await client.post(dice.choice(["/refresh", "/refresh", "/logout"]), refresh_token=token)

        await asyncio.gather(clients[0].post("/logout", refresh_token=token), everywhere(clients, one))
        answers = await everywhere(clients, lambda client: client.refresh(token), times=1)
        assert {refusal(answer)[1:] for answer in answers} == {("session_revoked", "logout")}
        logins = await everywhere(
            clients, lambda client: client.post("/login", username=user, password=PASSWORD)
        )
        assert {answer.status_code for answer in logins} == {200}
        living = f"""
            select count(*) from sessions join users on users.id = user_id
            where username = '{user}' and revoked_at is null
        """
        assert postgres.fetch(processes.database, living) == [(LIMIT,)]
        seen = [await clients[0].refresh(each.json()) for each in logins]
        held[user] = next((each.json()["refresh_token"], 0) for each in seen if each.status_code == 200)

    for _ in range(ROUNDS):
        await asyncio.sleep(max(0, due - time.monotonic()))
        await asyncio.gather(*(rotate(user) for user in held))
        ending = dice.sample(sorted(held), len(held) // 4)
        await asyncio.gather(*(end(user) for user in ending))
        due = time.monotonic() + DUE
        rotations, endings = rotations + len(held), endings + len(ending)
    print(  # noqa: T201 - measured figures
        f"{PROCESSES} processes: {rotations} rotations each asked for {2 * PROCESSES} times at once, "
        f"{endings} endings among refreshes, {processes.deadlocks()} deadlocks"
    )
    assert processes.deadlocks() == 0
