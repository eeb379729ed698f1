"""Rotations a second in the storage alone: batched in one statement, as in the service, and one by one."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median

from benchmarks import fill, postgresql, service
from benchmarks.plan import Plan
from benchmarks.processes import PATIENCE
from benchmarks.results import Results, Row
from sessionapi import container
from sessionapi.clock import system_clock
from sessionapi.sessions.batching import Batcher
from sessionapi.sessions.policy import Policy
from sessionapi.settings import Settings
from sessionapi.storage import Store
from sessionapi.storage.database_url import Options
from sessionapi.storage.session_batches import Rotation
from sessionapi.tokens import refresh_token
from sessionapi.tokens.refresh_token import RefreshToken

IN_FLIGHT = 64
TARGET = 10
SECONDS = 0.5
"""The share of a run's length that each side gets."""

Rotate = Callable[[RefreshToken], Awaitable[None]]


def measure(plan: Plan, results: Results) -> None:
    """Measure on both engines."""
    for engine in ("SQLite", "PostgreSQL") if plan.postgresql else ("SQLite",):
        folder = plan.place(f"storage-{engine}")
        url = postgresql.database(plan.postgresql, "storage") if engine == "PostgreSQL" else ""
        settings = service.settings_of(folder, database_url=url)
        service.prepare(settings)
        results.rows.append(asyncio.run(_compare(plan, engine, settings)))


async def _compare(plan: Plan, engine: str, settings: Settings) -> Row:
    store = Store(settings.effective_database_url, Options(timeout=PATIENCE))
    policy = container.policy_of(settings)
    single, together = [], []
    try:
        for _ in range(plan.rounds):
            single.append(await _rate(plan, settings, one_by_one(store, policy)))
            together.append(await _rate(plan, settings, batched(store, policy)))
    finally:
        await store.close()
    factor = median(many / one for many, one in zip(together, single, strict=True))
    speeds = f"{median(together):,.0f}/s against {median(single):,.0f}/s"
    what = f"rotations/s batched ÷ one by one, storage alone, {engine}"
    return Row(what, f"≥ {TARGET}", f"{factor:.1f} ({speeds})", factor >= TARGET)


def one_by_one(store: Store, policy: Policy) -> Rotate:
    """Return a function that rotates one session in a separate transaction."""

    async def rotate(token: RefreshToken) -> None:
        rotation = _rotation(token, policy)
        async with store.begin() as tx:
            rotated = await tx.session_batches.rotate([rotation])
        assert rotation.key in rotated

    return rotate


def batched(store: Store, policy: Policy) -> Rotate:
    """Return a function that rotates one session in one statement together with all that are waiting."""

    async def rotate_all(rotations: Sequence[Rotation]) -> Sequence[bool]:
        async with store.begin() as tx:
            await tx.commit_asynchronously()
            rotated = await tx.session_batches.rotate(rotations)
        return [each.key in rotated for each in rotations]

    batches: Batcher[Rotation, bool] = Batcher(rotate_all)

    async def rotate(token: RefreshToken) -> None:
        assert await batches.submit(_rotation(token, policy))

    return rotate


def _rotation(token: RefreshToken, policy: Policy) -> Rotation:
    now = system_clock()
    return Rotation(
        (token.user_id, token.session_id),
        token.generation,
        token.secret_digest,
        now,
        waited=now - 3 * policy.refresh_grace,
        active=True,
        retry_digest=None,
        ip="127.0.0.1",
    )


async def _rate(plan: Plan, settings: Settings, rotate: Rotate) -> float:
    """Return the rotations a second with 64 in flight, each of a session that is due."""
    key = service.refresh_key()
    count = int(plan.few * plan.seconds)
    filled = await asyncio.to_thread(fill.fill, settings, key, count, due=True)
    tokens = [refresh_token.match(text, [key]) for text in filled.refresh_tokens]
    waiting = iter([token for token in tokens if token is not None])
    began, done = time.perf_counter(), 0
    deadline = began + plan.seconds * SECONDS

    async def worker() -> None:
        nonlocal done
        for token in waiting:
            await rotate(token)
            done += 1
            if time.perf_counter() > deadline:
                return

    await asyncio.gather(*(worker() for _ in range(IN_FLIGHT)))
    return done / (time.perf_counter() - began)
