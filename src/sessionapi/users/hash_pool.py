"""Bounded pool of low-priority threads for password hashes, with a fair queue in front of it.

A request takes a place before its attempt is counted. If there is no room, it is refused at once. The number
of places per user and per network is limited, so that no single one can fill the queue. The queue is a round
robin over lanes and, within a lane, over users. A user has at most two hashes running. The lane of a request
in a session is its user. The lane of a login or a sign-up is its network, whether or not the user exists, so
neither the order nor the limits reveal whether a username exists (ASVS 6.3.8).
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
"""Maximum number of hashes of one user that run at the same time."""
QUEUE_PER_THREAD = 100
"""Maximum number of queued hashes per thread: about 2 s of work. An honest client does not wait longer."""
_THREAD_NICENESS = 10

R = TypeVar("R")


class HashPool:
    """Pool that runs `threads` hashes and queues 100 times as many; beyond that it raises Overloaded.

    One user may hold a quarter of all places and one network three quarters, because a network may be a proxy
    that is missing from the settings, with all users behind it.
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
        """Assign a place to a user, or raise Overloaded if the user has too many.

        Assigning it to the same user again changes nothing, because a transaction may be retried.
        """
        if place.user == user:
            return
        if self._users[user] >= self._user_room:
            raise Overloaded
        self._users[user] += 1
        place.user = user

    async def run(self, place: "Place", work: Callable[[], R]) -> R:
        """Run `work` in a thread when it is this place's turn, and return its result.

        A request that is cancelled leaves the queue; a hash that has started is finished.
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
        """Wait for the hashes that are running; queued requests are cancelled."""
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
    """Place of one request in the pool. It belongs to a lane and, once the user is known, to that user."""

    __slots__ = ("_pool", "lane", "user")

    def __init__(self, pool: HashPool, lane: Hashable) -> None:
        self._pool = pool
        self.lane = lane
        self.user: Hashable = None

    def assign(self, user: Hashable) -> None:
        """Assign this place to a user, or raise Overloaded if the user has too many places."""
        self._pool.assign(self, user)

    async def run(self, work: Callable[[], R]) -> R:
        """Compute a hash when it is this place's turn."""
        return await self._pool.run(self, work)


@dataclass(eq=False, slots=True)
class _Job:
    """A hash that is queued or running."""

    lane: Hashable
    user: Hashable
    work: Callable[[], Any]
    result: asyncio.Future[Any]


class _FairQueue:
    """Queue of jobs by lane and user; the lane and the user that were served last move to the end."""

    def __init__(self) -> None:
        self._lanes: OrderedDict[Hashable, OrderedDict[Hashable, deque[_Job]]] = OrderedDict()
        self._running: Counter[Hashable] = Counter()

    def add(self, job: _Job) -> None:
        self._lanes.setdefault(job.lane, OrderedDict()).setdefault(job.user, deque()).append(job)

    def take(self) -> _Job | None:
        """Return the next job, or None if every queued job belongs to a user with two running hashes."""
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
        """Record that a job is no longer running."""
        _subtract(self._running, job.user)

    def discard(self, job: _Job) -> None:
        """Remove a job if it is still queued."""
        users = self._lanes.get(job.lane)
        jobs = users.get(job.user) if users else None
        if jobs and job in jobs:
            jobs.remove(job)
            self._drop_empty(job)

    def cancel(self) -> None:
        """Cancel all queued jobs."""
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
    # Linux has a priority for each thread; elsewhere this call would lower that of the whole process.
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _THREAD_NICENESS)
