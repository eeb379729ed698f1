"""Concurrent calls share a batch, and the failure of one does not reach another."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from sessionapi.errors import Overloaded, Unavailable
from sessionapi.sessions.batching import Batcher
from tests.support.api_client import refusal
from tests.support.app import Running, running


@dataclass
class Statement:
    """Work that blocks until it is released, and then returns the double of each number."""

    batches: list[list[int]] = field(default_factory=list)
    may_go_on: asyncio.Event = field(default_factory=asyncio.Event)
    problem: Exception | None = None

    async def __call__(self, asked: Sequence[int]) -> list[int]:
        self.batches.append(list(asked))
        await self.may_go_on.wait()
        if self.problem:
            raise self.problem
        return [2 * number for number in asked]


async def asking(batcher: Batcher[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(batcher.submit(number)) for number in numbers]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_one_is_under_way_is_answered_by_the_next():
    statement = Statement()
    batcher = Batcher(statement)
    tasks = await asking(batcher, 1) + await asking(batcher, 2, 3, 4)
    statement.may_go_on.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert statement.batches == [[1], [2, 3, 4]]


async def test_a_batch_is_bounded_and_the_order_is_kept():
    statement = Statement()
    batcher = Batcher(statement, max_batch=2)
    tasks = await asking(batcher, 1) + await asking(batcher, 2, 3, 4)
    statement.may_go_on.set()
    await asyncio.gather(*tasks)
    assert statement.batches == [[1], [2, 3], [4]]


async def test_whoever_gives_up_takes_nobody_along():
    """Fails if the batch runs in the task of the first caller."""
    statement = Statement()
    batcher = Batcher(statement)
    first, second, third = await asking(batcher, 1) + await asking(batcher, 2, 3)
    first.cancel()
    second.cancel()
    statement.may_go_on.set()
    assert await third == 6
    assert statement.batches == [[1], [3]]


async def test_the_trouble_of_a_batch_is_that_of_those_in_it():
    statement = Statement(problem=Unavailable())
    batcher = Batcher(statement)
    refused = await asking(batcher, 1, 2)
    statement.may_go_on.set()
    assert [type(each) for each in await asyncio.gather(*refused, return_exceptions=True)] == [
        Unavailable
    ] * 2
    statement.problem = None
    assert await batcher.submit(3) == 6


@pytest.mark.parametrize("kind", [Overloaded, ZeroDivisionError])
async def test_an_answer_that_is_an_error_is_raised_for_whose_it_is_and_nobody_is_asked_again(kind):
    batches = []

    async def refusing(asked: Sequence[int]) -> list[int | Exception]:
        batches.append(list(asked))
        return [number if number % 2 else kind() for number in asked]

    batcher = Batcher(refusing)
    answers = await asyncio.gather(*(batcher.submit(number) for number in (1, 2, 3)), return_exceptions=True)
    assert (answers[0], type(answers[1]), answers[2]) == (1, kind, 3)
    assert batches == [[1, 2, 3]]


async def test_one_too_many_is_refused_at_once():
    statement = Statement()
    batcher = Batcher(statement, max_queue=2)
    tasks = await asking(batcher, 1) + await asking(batcher, 2, 3)
    with pytest.raises(Overloaded):
        await batcher.submit(4)
    statement.may_go_on.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]


@pytest.fixture
async def busy(make_settings, clock) -> Running:
    async with running(make_settings(refresh_grace=1, rotate_after=3), clock) as it:
        yield it


async def test_a_hundred_rotations_at_once_take_a_handful_of_statements(busy: Running):
    """Fails without Batcher in SessionLoader, because each would then take a separate transaction."""
    await busy.sign_up()
    held = [await busy.log_in() for _ in range(99)]
    busy.clock.move(3)
    updates: list[str] = []

    def note(connection, cursor, statement, *rest):
        updates.extend([statement] if "UPDATE sessions" in statement else [])

    sa.event.listen(busy.container.store._writer.sync_engine, "before_cursor_execute", note)
    answers = await asyncio.gather(*(busy.refresh(tokens) for tokens in held))
    assert {(answer.status_code, answer.json()["generation"]) for answer in answers} == {(200, 1)}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 99
    assert len(updates) < 10


UNREADABLE = {
    "a time out of range": "update sessions set auth_time = 9223372036854775807 where user_id = :user",
    "roles that are not a list": "update users set roles = '5' where id = :user",
}


@pytest.mark.parametrize("damage", UNREADABLE.values(), ids=UNREADABLE)
async def test_a_row_that_cannot_be_decoded_fails_only_its_own_refresh(busy: Running, damage: str):
    """Fails if BatchQueries.read decodes the rows of a batch all at once."""
    held = [await busy.sign_up(name) for name in ("ada", "bob", "eve")]
    user = await busy.container.accounts.find("bob")
    async with busy.container.store.begin() as tx:
        await tx.connection.execute(sa.text(damage).bindparams(sa.bindparam("user", user.id, sa.Uuid())))
    answers = await asyncio.gather(*(busy.refresh(tokens) for tokens in [*held, *held]))
    assert [answer.status_code for answer in answers] == [200, 500, 200] * 2


async def test_a_stale_token_is_not_let_in_with_a_good_one_of_the_same_batch(busy: Running):
    """Fails if a decision other than a rotation joins the batch, whose row fits any token of the session."""
    first = await busy.sign_up()
    busy.clock.move(3)
    second = (await busy.refresh(first)).json()
    busy.clock.move(3)
    good, stale = await asyncio.gather(busy.refresh(second), busy.refresh(first))
    assert refusal(stale)[1] in ("refresh_token_reused", "session_revoked")
    assert good.status_code == 200 or refusal(good)[1] == "session_revoked"
    assert refusal(await busy.refresh(second))[1] == "session_revoked"


async def test_of_two_tabs_in_one_batch_both_have_the_same_successor(busy: Running):
    tokens = await busy.sign_up()
    busy.clock.move(3)
    one, other = await asyncio.gather(busy.refresh(tokens), busy.refresh(tokens))
    assert one.json()["refresh_token"] == other.json()["refresh_token"]
    assert one.json()["generation"] == 1


async def test_while_the_database_is_away_who_waits_is_refused_with_the_batch_before():
    """Fails without Batcher._empty_queue: each batch would wait its whole time for a frozen server."""
    statement = Statement(problem=Unavailable())
    batcher = Batcher(statement)
    tasks = await asking(batcher, 1) + await asking(batcher, 2, 3)
    statement.may_go_on.set()
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [Unavailable] * 3
    assert statement.batches == [[1]]
