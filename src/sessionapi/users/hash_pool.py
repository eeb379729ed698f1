"""A bounded pool of low-priority threads for password hashes, with a fair queue in front of it.

A request takes a place first, before its attempt is counted; without room it is refused at once. The places
of one user, and of one network, are bounded, so that none of them fills the queue alone. The queue is a round
robin over lanes and, within a lane, over users. A user has at most two hashes under way. The lane of a
session's request is its user. That of a login or a sign-up is its network, whether the user exists or not, so
neither the order nor the bounds show whether a name exists (ASVS 6.3.8).
"""

import asyncio
import contextlib
import os
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sessionapi.errors import Overloaded
from sessionapi.metrics import Metrics

USER_AT_ONCE = 2
"""Hashes of one user that are under way at the same time."""
QUEUE_PER_THREAD = 100
"""Hashes that may wait for a thread: about 2 s of work, beyond which an honest client has given up."""
_THREAD_NICENESS = 10

R = TypeVar("R")


class HashPool:
    """At most `threads` hashes run and 100 times as many wait; one more is `Overloaded` at once.

    Of all places one user may hold a quarter and one network three quarters: a network may be a proxy that
    the settings do not name, with all users behind it.
    """

    def __init__(self, threads: int, metrics: Metrics) -> None:
        self._metrics = metrics
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="hash", initializer=_lower_priority)
        self._idle = threads
        self._queue = _FairQueue()
        self.room = threads * (1 + QUEUE_PER_THREAD)
        self._user_room = self.room // 4
        self._lane_room = self.room * 3 // 4
        self._lanes: Counter[Hashable] = Counter()
        self._users: Counter[Hashable] = Counter()

    @contextlib.contextmanager
    def place(self, lane: Hashable) -> Iterator["Place"]:
        """Take a place for one request, or raise Overloaded at once."""
        if self.room <= 0 or self._lanes[lane] >= self._lane_room:
            raise Overloaded
        place = Place(self, lane)
        self.room -= 1
        self._lanes[lane] += 1
        self._metrics.hash_queue.inc()
        try:
            yield place
        finally:
            self.room += 1
            _subtract(self._lanes, lane)
            if place.user is not None:
                _subtract(self._users, place.user)
            self._metrics.hash_queue.dec()

    def assign(self, place: "Place", user: Hashable) -> None:
        """Give a place to a user, or raise Overloaded if the user has too many.

        To assign it to the same user again changes nothing: a transaction may be attempted again.
        """
        if place.user == user:
            return
        if self._users[user] >= self._user_room:
            raise Overloaded
        self._users[user] += 1
        place.user = user

    async def run(self, place: "Place", work: Callable[[], R]) -> R:
        """Return what `work` returns, computed in a thread when it is this place's turn.

        A request that is cancelled leaves the queue; a hash that has begun is finished.
        """
        result: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        job = _Job(place.lane, place.lane if place.user is None else place.user, work, result)
        self._queue.add(job)
        self._start_next()
        try:
            return await result
        finally:
            self._queue.discard(job)

    def close(self) -> None:
        """Let the hashes under way finish; requests that wait are cancelled."""
        self._queue.cancel()
        self._threads.shutdown()

    def _start_next(self) -> None:
        while self._idle:
            job = self._queue.take()
            if job is None:
                return
            self._idle -= 1
            running = asyncio.get_running_loop().run_in_executor(self._threads, job.work)
            running.add_done_callback(lambda done, job=job: self._finish(job, done))  # type: ignore[misc]

    def _finish(self, job: "_Job", done: asyncio.Future[Any]) -> None:
        self._idle += 1
        self._queue.finish(job)
        self._metrics.hashes.inc()
        problem = done.exception()
        if job.result.done():
            pass  # the request was cancelled
        elif problem:
            job.result.set_exception(problem)
        else:
            job.result.set_result(done.result())
        self._start_next()


class Place:
    """A request's place in the pool. It belongs to a lane, and to a user as soon as that is known."""

    __slots__ = ("_pool", "lane", "user")

    def __init__(self, pool: HashPool, lane: Hashable) -> None:
        self._pool = pool
        self.lane = lane
        self.user: Hashable = None

    def assign(self, user: Hashable) -> None:
        """Say whose password is hashed, or raise Overloaded if that user has too many places."""
        self._pool.assign(self, user)

    async def run(self, work: Callable[[], R]) -> R:
        """Compute a hash when it is this place's turn."""
        return await self._pool.run(self, work)


@dataclass(eq=False, slots=True)
class _Job:
    """A hash that waits or is under way."""

    lane: Hashable
    user: Hashable
    work: Callable[[], Any]
    result: asyncio.Future[Any]


class _FairQueue:
    """Jobs by lane and user; the lane and the user that were served last come last."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[Hashable, OrderedDict[Hashable, deque[_Job]]] = OrderedDict()
        self._running: Counter[Hashable] = Counter()

    def add(self, job: _Job) -> None:
        self._lanes.setdefault(job.lane, OrderedDict()).setdefault(job.user, deque()).append(job)

    def take(self) -> _Job | None:
        """Return the job whose turn it is, or None if all that wait are of users with two under way."""
        for lane, users in self._lanes.items():
            user = next((each for each in users if self._running[each] < USER_AT_ONCE), _NONE)
            if user is not _NONE:
                job = users[user].popleft()
                users.move_to_end(user)
                self._lanes.move_to_end(lane)
                self._drop_empty(job)
                self._running[user] += 1
                return job
        return None

    def finish(self, job: _Job) -> None:
        """Note that a job which was taken is no longer under way."""
        _subtract(self._running, job.user)

    def discard(self, job: _Job) -> None:
        """Remove a job if it still waits."""
        users = self._lanes.get(job.lane)
        jobs = users.get(job.user) if users else None
        if jobs and job in jobs:
            jobs.remove(job)
            self._drop_empty(job)

    def cancel(self) -> None:
        """Cancel all that wait."""
        lanes, self._lanes = self._lanes, OrderedDict()
        for job in (job for users in lanes.values() for jobs in users.values() for job in jobs):
            job.result.cancel()

    def _drop_empty(self, job: _Job) -> None:
        users = self._lanes[job.lane]
        if not users[job.user]:
            del users[job.user]
        if not users:
            del self._lanes[job.lane]


_NONE = object()


def _subtract(counter: Counter[Hashable], key: Hashable) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def _lower_priority() -> None:
    # On Linux each thread has its own priority; elsewhere this would lower that of the whole process.
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _THREAD_NICENESS)
