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
    """Run `work` now and every `interval` seconds until `stopping` is set. A running round is completed.

    An error ends the round but not the loop. If the database is unavailable, the next round tries again. An
    unexpected error is logged with its traceback.
    """
    failing = False
    while not stopping.is_set():
        try:
            await work()
            failing = False
        except SessionApiError as problem:
            if not failing:  # log once, not in every round of an outage
                log.warning("background work fails", work=name, reason=problem.detail)
            failing = True
        except Exception:
            log.exception("background work fails", work=name)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), interval)
