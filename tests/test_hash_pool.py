"""The queue in front of the threads that hash: turns, bounds, cancelled requests."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import pytest

from sessionapi.errors import Overloaded
from sessionapi.metrics import Metrics
from sessionapi.users.hash_pool import HashPool


@dataclass
class Bench:
    """A pool, and work that runs until it is released."""

    pool: HashPool
    metrics: Metrics
    done: list[str] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    gates: dict[str, threading.Event] = field(default_factory=dict)

    def work(self, name: str) -> Callable[[], str]:
        gate = self.gates[name] = threading.Event()

        def run() -> str:
            self.started.append(name)
            assert gate.wait(30)
            return name

        return run

    async def take(self, lane: str, user: str, name: str) -> str:
        with self.pool.place(lane) as place:
            place.assign(user)
            result = await place.run(self.work(name))
            self.done.append(name)
            return result

    def start(self, lane: str, user: str, name: str) -> asyncio.Task[str]:
        return asyncio.create_task(self.take(lane, user, name))

    async def until(self, *names: str) -> None:
        """Wait until exactly these have started, in any order within the threads."""
        while len(self.started) < len(names):
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert sorted(self.started) == sorted(names)

    async def let_go(self, name: str) -> None:
        self.gates[name].set()
        while name not in self.done:
            await asyncio.sleep(0)


def made(threads: int) -> Bench:
    metrics = Metrics()
    return Bench(HashPool(threads, metrics), metrics)


@pytest.fixture
async def four() -> AsyncIterator[Bench]:
    """A pool of four threads."""
    bench = made(4)
    yield bench
    close(bench)


@pytest.fixture
async def one() -> AsyncIterator[Bench]:
    """A pool of one thread."""
    bench = made(1)
    yield bench
    close(bench)


def close(bench: Bench) -> None:
    for gate in bench.gates.values():
        gate.set()
    bench.pool.close()
    assert bench.metrics.hash_queue._value.get() == 0
    assert not bench.pool._lanes
    assert not bench.pool._users


async def finish(bench: Bench, tasks: list[asyncio.Task[str]]) -> list[str]:
    while not all(task.done() for task in tasks):
        for gate in bench.gates.values():
            gate.set()
        await asyncio.sleep(0.001)  # the threads need the interpreter
    return [task.result() for task in tasks]


async def test_two_hashes_of_a_user_run_at_the_same_time_and_no_third(four: Bench):
    """Fails without USER_AT_ONCE. Two threads stay idle until another user comes."""
    tasks = [four.start(lane, "ada", f"ada{number}") for number, lane in enumerate(["a", "b", "a", "b"])]
    await four.until("ada0", "ada1")
    tasks.append(four.start("a", "bob", "bob"))
    await four.until("ada0", "ada1", "bob")
    await four.let_go("ada1")
    while len(four.started) < 4:
        await asyncio.sleep(0)
    assert four.started[3].startswith("ada")
    assert await finish(four, tasks) == ["ada0", "ada1", "ada2", "ada3", "bob"]


async def test_lanes_take_turns_and_users_within_a_lane_do(one: Bench):
    """Fails if the queue is served in the order of arrival."""
    tasks = [one.start("net", "first", "first")]
    await one.until("first")
    tasks += [one.start("net", "ada", f"ada{number}") for number in range(3)]
    tasks += [one.start("net", "bob", f"bob{number}") for number in range(2)]
    tasks += [one.start("other", "eve", f"eve{number}") for number in range(2)]
    await asyncio.sleep(0)
    await finish(one, tasks)
    assert one.started[1:] == ["ada0", "eve0", "bob0", "eve1", "ada1", "bob1", "ada2"]


async def test_a_request_that_is_cancelled_leaves_the_queue(one: Bench):
    """Fails without `discard` in HashPool.run: a hash would be computed for a request that is gone."""
    first = one.start("a", "ada", "first")
    await one.until("first")
    waiting = [one.start("a", "ada", f"next{number}") for number in range(3)]
    await asyncio.sleep(0)
    assert one.metrics.hash_queue._value.get() == 4
    waiting[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting[1]
    assert one.metrics.hash_queue._value.get() == 3
    await finish(one, [first, waiting[0], waiting[2]])
    assert one.started == ["first", "next0", "next2"]


async def test_a_hash_that_has_begun_keeps_its_thread_when_its_request_is_cancelled(one: Bench):
    """Fails if a cancelled request frees the thread that is still hashing."""
    first, second = one.start("a", "ada", "first"), one.start("b", "bob", "second")
    await one.until("first")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.sleep(0)
    assert one.started == ["first"]
    await finish(one, [second])
    assert one.started == ["first", "second"]


async def test_a_failing_hash_is_raised_for_its_request_and_frees_the_thread(one: Bench):
    def fail() -> None:
        raise ZeroDivisionError

    with one.pool.place("a") as place:
        place.assign("ada")
        with pytest.raises(ZeroDivisionError):
            await place.run(fail)
        assert await place.run(lambda: "good") == "good"


async def test_the_places_are_bounded_for_a_user_a_lane_and_in_all(one: Bench):
    """Fails without the bounds in HashPool.place and HashPool.assign."""
    tasks = [one.start(f"net{number}", "ada", f"ada{number}") for number in range(25)]
    await one.until("ada0")
    with pytest.raises(Overloaded):
        await one.take("elsewhere", "ada", "refused")
    tasks += [one.start("net", f"user{number}", f"user{number}") for number in range(75)]
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await one.take("net", "bob", "refused")
    tasks.append(one.start("elsewhere", "bob", "bob"))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded):
        await one.take("elsewhere", "eve", "refused")
    assert len(await finish(one, tasks)) == 101


async def test_what_waits_is_cancelled_when_the_pool_closes(one: Bench):
    first, second = one.start("a", "ada", "first"), one.start("a", "ada", "second")
    await one.until("first")
    one.gates["first"].set()
    one.pool.close()
    assert await first == "first"
    with pytest.raises(asyncio.CancelledError):
        await second
