"""Concurrent calls share a batch, and the failure of one does not reach another."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa

from sessionapi.errors import Overloaded, Unavailable
from sessionapi.sessions.batching import Batcher
from tests.conftest import Running, refusal, running


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


async def asking(book: Batcher[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(book.ask(number)) for number in numbers]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_what_comes_while_one_is_under_way_is_answered_by_the_next():
    statement = Statement()
    book = Batcher(statement)
    tasks = await asking(book, 1) + await asking(book, 2, 3, 4)
    statement.may_go_on.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6, 8]
    assert statement.batches == [[1], [2, 3, 4]]


async def test_a_batch_is_bounded_and_the_order_is_kept():
    statement = Statement()
    book = Batcher(statement, largest=2)
    tasks = await asking(book, 1) + await asking(book, 2, 3, 4)
    statement.may_go_on.set()
    await asyncio.gather(*tasks)
    assert statement.batches == [[1], [2, 3], [4]]


async def test_whoever_gives_up_takes_nobody_along():
    """Fails if the batch runs in the task of the first caller."""
    statement = Statement()
    book = Batcher(statement)
    first, second, third = await asking(book, 1) + await asking(book, 2, 3)
    first.cancel()
    second.cancel()
    statement.may_go_on.set()
    assert await third == 6
    assert statement.batches == [[1], [3]]


async def test_the_trouble_of_a_batch_is_that_of_those_in_it():
    statement = Statement(problem=Unavailable())
    book = Batcher(statement)
    refused = await asking(book, 1, 2)
    statement.may_go_on.set()
    assert [type(each) for each in await asyncio.gather(*refused, return_exceptions=True)] == [
        Unavailable
    ] * 2
    statement.problem = None
    assert await book.ask(3) == 6


async def test_a_defect_is_only_that_of_whose_question_it_is():
    """Fails without the halving in Batcher._answer: one unreadable row would fail the whole batch."""

    async def inverses(asked: Sequence[int]) -> list[float]:
        return [1 / number for number in asked]

    book = Batcher(inverses)
    tasks = [asyncio.create_task(book.ask(number)) for number in (1, 2, 0, 4, 0, 5)]
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each if isinstance(each, float) else type(each) for each in answers] == [
        1.0,
        0.5,
        ZeroDivisionError,
        0.25,
        ZeroDivisionError,
        0.2,
    ]


@pytest.mark.parametrize("kind", [Overloaded, ZeroDivisionError])
async def test_an_answer_that_is_an_error_is_raised_for_whose_it_is_and_nobody_is_asked_again(kind):
    batches = []

    async def refusing(asked: Sequence[int]) -> list[int | Exception]:
        batches.append(list(asked))
        return [number if number % 2 else kind() for number in asked]

    book = Batcher(refusing)
    answers = await asyncio.gather(*(book.ask(number) for number in (1, 2, 3)), return_exceptions=True)
    assert (answers[0], type(answers[1]), answers[2]) == (1, kind, 3)
    assert batches == [[1, 2, 3]]


async def test_one_too_many_is_refused_at_once():
    statement = Statement()
    book = Batcher(statement, room=2)
    tasks = await asking(book, 1) + await asking(book, 2, 3)
    with pytest.raises(Overloaded):
        await book.ask(4)
    statement.may_go_on.set()
    assert await asyncio.gather(*tasks) == [2, 4, 6]


@pytest.fixture
async def busy(make_settings, clock) -> Running:
    async with running(make_settings(refresh_grace=1, rotate_after=3), clock) as it:
        yield it


async def test_a_hundred_rotations_at_once_take_a_handful_of_statements(busy: Running):
    """Fails without Batcher in Refreshes, because each would then take a separate transaction."""
    await busy.sign_up()
    held = [await busy.log_in() for _ in range(99)]
    busy.clock.move(3)
    updates: list[str] = []

    def note(connection, cursor, statement, *rest):
        updates.extend([statement] if "UPDATE sessions" in statement else [])

    sa.event.listen(busy.parts.store._writer.sync_engine, "before_cursor_execute", note)
    answers = await asyncio.gather(*(busy.refresh(tokens) for tokens in held))
    assert {(answer.status_code, answer.json()["generation"]) for answer in answers} == {(200, 1)}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 99
    assert len(updates) < 10


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
    """Fails without Batcher._also_refused: each batch would wait its whole time for a frozen server."""
    statement = Statement(problem=Unavailable())
    book = Batcher(statement)
    tasks = await asking(book, 1) + await asking(book, 2, 3)
    statement.may_go_on.set()
    assert [type(each) for each in await asyncio.gather(*tasks, return_exceptions=True)] == [Unavailable] * 3
    assert statement.batches == [[1]]
