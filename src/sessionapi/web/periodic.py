"""Periodic background work of a server."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from sessionapi.errors import SessionApiError

log = structlog.get_logger()


async def repeat(
    name: str, work: Callable[[], Awaitable[object]], interval: float, stopping: asyncio.Event
) -> None:
    """Do some work now and every `interval` seconds, until `stopping` is set; a round is never cut short.

    A failure ends one round, never the loop: a database that is away is tried again the next time, and a
    defect of ours is logged with its trace.
    """
    failing = False
    while not stopping.is_set():
        try:
            await work()
            failing = False
        except SessionApiError as problem:
            if not failing:  # once, not twice a second for as long as it lasts
                log.warning("background work fails", work=name, reason=problem.detail)
            failing = True
        except Exception:
            log.exception("background work fails", work=name)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), interval)
