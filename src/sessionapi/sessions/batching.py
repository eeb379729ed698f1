"""Batching: requests that arrive while one statement runs are handled together by the next.

No timer is needed. A single request waits for nothing, and under load the batches grow by themselves.
Measured on 2 cores with 64 refreshes in flight, batches give 19 times as many rotations a second on SQLite as
single statements, and 11 times as many on PostgreSQL.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Generic, TypeVar

from sessionapi.errors import Overloaded, SessionApiError, Unavailable

Question = TypeVar("Question")
Answer = TypeVar("Answer")

LARGEST = 100
"""Requests per batch. A batch of refreshes takes some 5 ms with ES256, most of it signing, and others wait
for it."""
ROOM = 10_000
"""Maximum number of queued requests: about a second of work. A client does not wait longer anyway."""


class Batcher(Generic[Question, Answer]):
    """Queue of requests in order of arrival; `work` handles a batch and returns one result for each.

    A result that is an exception is raised in the caller of that request.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Question]], Awaitable[Sequence[Answer | Exception]]],
        *,
        largest: int = LARGEST,
        room: int = ROOM,
    ) -> None:
        self._work = work
        self._largest = largest
        self._room = room
        self._waiting: deque[tuple[Question, asyncio.Future[Answer]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """Return the result of a request. Raises its error, or Overloaded at once if the queue is full.

        The batch runs in a separate task, so a caller that is cancelled does not affect the others.
        """
        if len(self._waiting) >= self._room:
            raise Overloaded
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())
        return await answer

    async def settle(self) -> None:
        """Wait for the batches that are under way."""
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(self._largest, len(self._waiting)))]
            await self._answer([(question, answer) for question, answer in batch if not answer.done()])

    async def _answer(self, asked: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        """Handle a batch. After an unexpected error it is split, so that only the request at fault fails."""
        try:
            found = await self._work([question for question, _ in asked])
        except Exception as problem:
            if isinstance(problem, SessionApiError) or len(asked) < 2:
                _refuse((answer for _, answer in [*asked, *self._also_refused(problem)]), problem)
                return
            middle = len(asked) // 2
            await self._answer(asked[:middle])
            await self._answer(asked[middle:])
            return
        for (_, answer), each in zip(asked, found, strict=True):
            if answer.done():
                continue
            if isinstance(each, Exception):
                answer.set_exception(each)
            else:
                answer.set_result(each)

    def _also_refused(self, problem: Exception) -> Sequence[tuple[Question, asyncio.Future[Answer]]]:
        """Take the queued requests if the database is unavailable, so they do not time out one by one."""
        if not isinstance(problem, Unavailable) or problem.contended:
            return []
        waited, self._waiting = self._waiting, deque()
        return list(waited)


def _refuse(answers: Iterable[asyncio.Future[Answer]], problem: Exception) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(problem)
