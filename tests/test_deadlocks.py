"""The batches of several processes never deadlock; PostgreSQL itself counts deadlocks."""

import asyncio
import os
import random
from multiprocessing import get_context
from uuid import UUID

import pytest

from sessionapi.clock import system_clock
from sessionapi.storage import Store
from sessionapi.storage.session_batches import Rotation
from tests.support import postgres
from tests.support.app import Running

BATCHES = 10_000 if "SESSIONAPI_PROVE" in os.environ else 240
PROCESSES = 4
SESSIONS = 60
SIZE = 40
pytestmark = [pytest.mark.engines("postgresql"), pytest.mark.prove, pytest.mark.timeout(1_800)]


async def rotate_again_and_again(url: str, seed: int, keys: list[tuple[UUID, UUID]], digest: bytes) -> None:
    """Rotate the same sessions as all other processes, in any order, to generations that only grow."""
    dice = random.Random(seed)
    store = Store(url)
    for generation in range(seed, BATCHES, PROCESSES):
        now = system_clock()
        some = dice.sample(keys, SIZE)
        rotations = [Rotation(key, generation, digest, now, now, True, None, None) for key in some]
        async with store.begin() as tx:
            await tx.commit_asynchronously()
            await tx.session_batches.rotate(rotations)
    await store.close()


def in_a_process(*arguments) -> None:
    asyncio.run(rotate_again_and_again(*arguments))


async def test_no_batch_of_four_processes_ends_in_a_deadlock(service: Running, database_url: str):
    """Fails without ORDER BY in session_batches._locked: some deadlock within 100 batches."""
    await service.sign_up()
    for _ in range(SESSIONS - 1):
        await service.log_in()
    digest = bytes(32)
    postgres.execute(database_url, f"update sessions set secret_digest = decode('{digest.hex()}', 'hex')")
    keys = [(UUID(user), UUID(it)) for user, it in service.rows("select user_id, id from sessions")]
    count = "select deadlocks from pg_stat_database where datname = current_database()"
    before = service.rows(count)
    context = get_context("spawn")
    workers = [
        context.Process(target=in_a_process, args=(database_url, seed, keys, digest))
        for seed in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        await asyncio.to_thread(worker.join)
    assert [worker.exitcode for worker in workers] == [0] * PROCESSES
    postgres.execute(database_url, "select pg_stat_force_next_flush()")
    assert service.rows(count) == before
    assert service.rows("select max(generation) from sessions") == [(BATCHES,)]
    print(f"{BATCHES} batches of {PROCESSES} processes, no deadlock")  # noqa: T201 - for make prove
