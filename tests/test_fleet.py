"""Two servers and the resource server of `examples/`, all real: a change at one of them reaches all."""

import asyncio
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import jwt
import pytest

from tests.support.api_client import AsyncApiClient, bearer, refusal
from tests.support.ports import free_port
from tests.support.server import serving
from tests.support.settings import environment
from tests.support.waiting import eventually

PROVE = "SESSIONAPI_PROVE" in os.environ
ROUNDS, ROTATIONS = (50, 20) if PROVE else (5, 2)
ROOT = Path(__file__).parent.parent
pytestmark = [pytest.mark.server, pytest.mark.prove, pytest.mark.timeout(600)]


@dataclass
class Fleet:
    """The URLs of servers A and B on one folder, and of a service that trusts their tokens."""

    a: str
    b: str
    orders: str
    environment: dict[str, str]

    @property
    def doors(self) -> list[str]:
        return [f"{self.a}/protected", f"{self.b}/protected", f"{self.orders}/orders"]

    async def command(self, *arguments: str) -> str:
        """Run `sessionapi` next to the servers and return its output."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sessionapi", *arguments), env=self.environment, stdout=subprocess.PIPE
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0
        return printed.decode().strip()


@contextmanager
def resource_server(issuer: str, service_token: str, log: Path) -> Iterator[str]:
    """Run the example as its first lines describe."""
    command = ["uvicorn", "--app-dir", str(ROOT / "examples/resource_server"), "app:app", "--port", "0"]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**os.environ, "ISSUER": issuer, "SERVICE_TOKEN": service_token},
            stdout=stderr,
            stderr=stderr,
        )

    def address() -> str:
        assert process.poll() is None, log.read_text()
        return "".join(re.findall(r"running on (http://127.0.0.1:\d+) ", log.read_text()))

    try:
        url = eventually(address)
        assert httpx.get(f"{url}/orders").status_code == 401
        yield url
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    data, port = folder / "var", free_port()
    issuer = f"http://127.0.0.1:{port}"
    settings = {"public_url": issuer, "jwks_max_age": 1, "log_level": "warning"}
    own = environment(data, **settings)
    with serving(data, "--port", str(port), **settings) as a, serving(data, **settings) as b:
        made = subprocess.run(
            [sys.executable, "-m", "sessionapi", "service-tokens", "add", "orders"],
            env=own,
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
        for username in ("ada", "eve", "joe"):
            a.sign_up(username)
        with resource_server(issuer, made.stdout.strip(), folder / "orders.log") as orders:
            yield Fleet(a.url, b.url, orders, own)


@asynccontextmanager
async def traffic(client: httpx.AsyncClient, fleet: Fleet) -> AsyncIterator[list[str]]:
    """Log in, refresh and verify at all of them until the block ends; yields the failures."""
    failed: list[str] = []
    stop = asyncio.Event()
    done = [0]

    async def user(name: str, here: str, there: str) -> None:
        while not stop.is_set():
            tokens = await AsyncApiClient(client.request, here).log_in(name)
            for _ in range(5):
                answer = await AsyncApiClient(client.request, there).refresh(tokens)
                if not answer.is_success:
                    failed.append(answer.text)
                    break
                for door in fleet.doors:
                    opened = await client.get(door, headers=bearer(answer.json()))
                    done[0] += 1
                    if opened.status_code != 200:
                        failed.append(f"{door}: {opened.text}")

    users = [
        asyncio.create_task(user(*who)) for who in (("eve", fleet.a, fleet.b), ("joe", fleet.b, fleet.a))
    ]
    try:
        yield failed
    finally:
        stop.set()
        await asyncio.gather(*users)
    assert done[0] > 0
    print(f"traffic meanwhile: {done[0]} verifications, {len(failed)} failures")  # noqa: T201


async def until_refused(client: httpx.AsyncClient, door: str, tokens: dict, since: float) -> float:
    """Return the number of seconds after `since` at which a door refuses a token."""
    while (answer := await client.get(door, headers=bearer(tokens))).status_code == 200:
        assert time.monotonic() < since + 30, f"{door} still lets it in"
    assert answer.status_code == 401, answer.text
    return time.monotonic() - since


def told(what: str, seconds: list[float]) -> None:
    """Print a measured figure. Only the full proof compares it with the promise of a second."""
    half, most = statistics.median(seconds), max(seconds)
    print(f"{what}: median {half:.2f} s, maximum {most:.2f} s of {len(seconds)}")  # noqa: T201
    assert not PROVE or most <= 1.0


async def test_a_revocation_reaches_the_other_server_and_the_resource_server(fleet: Fleet):
    """Fails without the poll in serve, and without `service_token` in the example."""
    waited: list[float] = []
    async with httpx.AsyncClient(timeout=30) as client, traffic(client, fleet) as failed:
        for _ in range(ROUNDS):
            tokens = await AsyncApiClient(client.request, fleet.a).log_in()
            for door in fleet.doors:
                assert (await client.get(door, headers=bearer(tokens))).status_code == 200
            path = f"{fleet.a}/sessions/{tokens['session_id']}"
            assert (await client.delete(path, headers=bearer(tokens))).status_code == 204
            since = time.monotonic()
            assert (await client.get(fleet.doors[0], headers=bearer(tokens))).status_code == 401
            others = (until_refused(client, door, tokens, since) for door in fleet.doors[1:])
            waited += await asyncio.gather(*others)
            answer = await client.get(fleet.doors[1], headers=bearer(tokens))
            assert refusal(answer) == (401, "session_revoked", "revoked_by_user")
    assert failed == []
    told("refused by the other server and the resource server after", waited)


def _kid(tokens: dict) -> str:
    return jwt.get_unverified_header(tokens["access_token"])["kid"]


async def test_keys_rotate_under_load_and_nothing_fails(fleet: Fleet):
    """Fails if a new key signs before it was published for JWKS_MAX_AGE, or if a retired one is removed."""
    async with httpx.AsyncClient(timeout=30) as client:
        async with traffic(client, fleet) as failed:
            for _ in range(ROTATIONS):
                await fleet.command("keys", "rotate")
        assert failed == []
        active = await fleet.command("keys", "rotate", "--now")
        at_a, at_b = (AsyncApiClient(client.request, url) for url in (fleet.a, fleet.b))
        tokens = [await server.log_in() for server in (at_a, at_b)]
        for each in tokens:
            for door in fleet.doors[:2]:
                assert (await client.get(door, headers=bearer(each))).status_code == 200

        async def signed_with_it() -> dict:  # the JWKS shows it before it signs
            while _kid(tokens := await at_a.log_in()) != active:
                await asyncio.sleep(0.05)
            return tokens

        leaked = await signed_with_it()
        await asyncio.gather(*(opens(client, door, leaked) for door in fleet.doors))
        await fleet.command("keys", "drop", active)
        since = time.monotonic()
        waited = await asyncio.gather(*(until_refused(client, door, leaked, since) for door in fleet.doors))
        told("a dropped key's token is refused everywhere after", list(waited))
        renewed = await at_b.refresh(leaked)
        await asyncio.gather(*(opens(client, door, renewed.json()) for door in fleet.doors))


async def opens(client: httpx.AsyncClient, door: str, tokens: dict) -> None:
    """Wait until a door has the key of a token and lets it in."""
    deadline = time.monotonic() + 20
    while (answer := await client.get(door, headers=bearer(tokens))).status_code != 200:
        assert time.monotonic() < deadline, answer.text


def test_the_documentation_shows_the_examples_own_lines():
    shown = (ROOT / "docs/verifier.md").read_text().split("```python\n")[1].split("```")[0]
    assert shown in (ROOT / "examples/resource_server/app.py").read_text()
