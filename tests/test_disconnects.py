"""Clients that disconnect in the middle leave nothing behind: no connection, no descriptor, no memory."""

import asyncio
import json
import os
import random
import re
from pathlib import Path

import httpx
import pytest

from tests.support import postgres
from tests.support.api_client import PASSWORD, bearer
from tests.support.app import Running
from tests.support.server import Server, serving
from tests.support.settings import SERVER_SECRET
from tests.support.waiting import eventually

PROVE = "SESSIONAPI_PROVE" in os.environ
CLIENTS, TURNS = (1_000, 5) if PROVE else (100, 2)
pytestmark = [pytest.mark.server, pytest.mark.prove, pytest.mark.timeout(600)]


def descriptors(server: Server) -> int:
    return len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))


def resident(server: Server) -> float:
    """Return the memory of a server in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) / 1024


def unfinished(url: str) -> list[tuple]:
    """Return the transactions that servers left open in PostgreSQL."""
    query = """
        select state, count(*) from pg_stat_activity
        where application_name = 'sessionapi' and state like 'idle in%' group by state
    """
    return postgres.fetch(url, query) if url else []


async def leave(server: Server, dice: random.Random, requests: list[bytes]) -> None:
    """Send a request, or a part of one, and disconnect abruptly, at once or shortly afterwards."""
    url = httpx.URL(server.url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    request = dice.choice(requests)
    writer.write(request[: dice.choice([len(request), len(request), dice.randrange(len(request))])])
    await writer.drain()
    await asyncio.sleep(dice.choice([0, 0.001, 0.005, 0.02]))
    writer.transport.abort()


def raw(method: str, path: str, body: dict | None = None, **headers: str) -> bytes:
    content = json.dumps(body).encode() if body else b""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(content)}"]
    lines += ["Content-Type: application/json", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def test_clients_that_go_away_in_the_middle_leave_nothing_behind(tmp_path: Path, database_url: str):
    own = {"database_url": database_url, "secret": SERVER_SECRET, "log_level": "warning"}
    with serving(tmp_path / "var", **own) as server:
        login = {"username": "ada", "password": PASSWORD}
        tokens = server.sign_up()
        requests = [
            raw("POST", "/login", login),
            raw("POST", "/refresh", {"refresh_token": tokens["refresh_token"]}),
            raw("GET", "/me", **bearer(tokens)),
            raw("GET", "/sessions", **bearer(tokens)),
        ]
        dice = random.Random(4)

        async def turn() -> None:
            for _ in range(CLIENTS // 50):
                await asyncio.gather(*(leave(server, dice, requests) for _ in range(50)))

        def settled() -> bool:
            return httpx.get(f"{server.url}/readyz", timeout=60).status_code == 200 and not unfinished(
                database_url
            )

        asyncio.run(turn())
        eventually(settled)
        held, memory = descriptors(server), resident(server)
        course = []
        for _ in range(TURNS):
            asyncio.run(turn())
            eventually(settled)
            course.append(round(resident(server)))
        eventually(lambda: descriptors(server) <= held + 5)
        print(  # noqa: T201 - measured figures
            f"{CLIENTS * TURNS} clients that went away ({'postgresql' if database_url else 'sqlite'}): "
            f"descriptors {held} before, {descriptors(server)} after; "
            f"memory {memory:.0f} MB before, then {course} MB"
        )
        assert course[-1] < 1.05 * course[-2], "as many again need more memory"
        server.log_in()
    assert "Traceback" not in server.log.read_text()


@pytest.mark.engines("sqlite")
async def test_a_request_that_is_cancelled_gives_its_connection_back(service: Running):
    """Fails if the connection is closed only when nothing was cancelled.

    On PostgreSQL the clients of the test above do the same to a real server. The driver complains to the
    event loop when it is cancelled while it connects, and the runner of these tests takes that for a failure.
    """
    tokens = await service.sign_up()
    dice = random.Random(5)
    body = {"username": "ada", "password": PASSWORD}
    for _ in range(CLIENTS // 4):
        requests = [
            asyncio.create_task(service.client.post("/login", json=body)),
            asyncio.create_task(service.refresh(tokens)),
            asyncio.create_task(service.get("/me", tokens)),
        ]
        for _ in range(dice.randrange(60)):
            await asyncio.sleep(0)
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
    store = service.container.store
    async with asyncio.timeout(30):
        while store._writer.pool.checkedout() or store._reader.pool.checkedout():
            await asyncio.sleep(0.01)
    await asyncio.gather(*(service.refresh(tokens) for _ in range(20)))
    assert (await service.log_in())["user"]["username"] == "ada"
