"""Batching: requests that arrive while one statement runs are handled together by the next.

No timer is needed. A single request waits for nothing, and under load the batches grow by themselves.
Measured on 2 cores with 64 refreshes in flight, batches give 19 times as many rotations a second on SQLite as
single statements, and 11 times as many on PostgreSQL.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from sessionapi.errors import Overloaded, Unavailable

Request = TypeVar("Request")
Result = TypeVar("Result")

MAX_BATCH = 100
"""Maximum number of requests in a batch. A full batch of refreshes takes some 5 ms with ES256, most of it
for signing, and other requests wait for it."""
MAX_QUEUE = 10_000
"""Maximum number of queued requests: about a second of work. A client does not wait longer anyway."""


class Batcher(Generic[Request, Result]):
    """Queue of requests in order of arrival; `work` handles a batch and returns one result for each.

    A result that is an exception is raised in the caller of that request. An exception that `work` raises is
    raised in all callers of the batch.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Request]], Awaitable[Sequence[Result | Exception]]],
        *,
        max_batch: int = MAX_BATCH,
        max_queue: int = MAX_QUEUE,
    ) -> None:
        self._work = work
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: deque[tuple[Request, asyncio.Future[Result]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def submit(self, request: Request) -> Result:
        """Return the result of a request. Raises its error, or Overloaded at once if the queue is full.

        The batch runs in a separate task, so a caller that is cancelled does not affect the others.
        """
        if len(self._queue) >= self._max_queue:
            raise Overloaded
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._queue.append((request, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await future

    async def drain(self) -> None:
        """Wait for the batches that are under way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(self._max_batch, len(self._queue)))]
            await self._handle([(request, future) for request, future in batch if not future.done()])

    async def _handle(self, batch: Sequence[tuple[Request, asyncio.Future[Result]]]) -> None:
        futures = [future for _, future in batch]
        try:
            results = await self._work([request for request, _ in batch])
        except Exception as error:
            if isinstance(error, Unavailable) and not error.contended:
                futures += self._empty_queue()
            results = [error] * len(futures)
        for future, result in zip(futures, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                future.set_exception(result)
            else:
                future.set_result(result)

    def _empty_queue(self) -> list[asyncio.Future[Result]]:
        """Empty the queue when the database is unavailable, so that batches do not time out one by one."""
        queue, self._queue = self._queue, deque()
        return [future for _, future in queue]
