"""Work that a server does beside its requests, again and again, until it stops."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from sessionapi.errors import SessionApiError

log = structlog.get_logger()


async def repeat(name: str, work: Callable[[], Awaitable[object]], interval: float) -> None:
    """Do some work every `interval` seconds, from now on, until cancelled.

    A failure ends one round, never the loop: a database that is away is tried again the next time, and a
    defect of ours is logged with its trace.
    """
    failing = False
    while True:
        try:
            await work()
            failing = False
        except SessionApiError as problem:
            if not failing:  # once, not twice a second for as long as it lasts
                log.warning("background work fails", work=name, reason=problem.detail)
            failing = True
        except Exception:
            log.exception("background work fails", work=name)
        await asyncio.sleep(interval)
