"""Sessions on the real store, driven by Hypothesis and compared with a model that fits on a page."""

import os
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sessionapi import ids
from sessionapi.settings import Settings
from tests.support.api_client import refusal
from tests.support.app import running
from tests.support.clock import FakeClock
from tests.support.database import empty
from tests.support.settings import CHEAP_HASH, SERVER_SECRET
from tests.support.waiting import PATIENCE

EXAMPLES = 300 if "SESSIONAPI_PROVE" in os.environ else 6
STEPS = 100
GRACE, APART, DUE = 10, 30, 600
DAY = 86_400
SHORT = [0, 1, 9, 10, 11, 20, 29, 30, 31, 570, 599, 600, 601, 3_600]
LONG = [DAY // 2 - 1, DAY // 2, DAY - 1, DAY, 7 * DAY - 1, 7 * DAY]
pytestmark = [pytest.mark.timeout(1_800), pytest.mark.prove]  # small without SESSIONAPI_PROVE


@dataclass
class Model:
    """The expected state of one session, in whole seconds, written without looking at the code."""

    start: int
    idle: int
    life: int
    generation: int = 0
    rotated: int = 0
    seen: int = 0
    late_repeat: int | None = None
    keys: list[str] = field(default_factory=list)
    ended: str | None = None

    def state(self, now: int) -> str | None:
        if self.ended:
            return self.ended
        idle_end, last_end = self.seen + self.idle, self.start + self.life
        if now < min(idle_end, last_end):
            return None
        return "idle" if idle_end <= last_end else "absolute"

    def refresh(self, shown: int, key: str | None, active: bool, now: int) -> str | int:
        """Return the generation of the response, or the reason of a refusal."""
        if over := self.state(now):
            return over
        waits = now - self.rotated < APART or (
            self.late_repeat is not None and now - self.late_repeat < APART
        )
        unseen = active and now - self.seen >= DUE
        if shown == self.generation and not waits and (now - self.rotated >= DUE or unseen):
            self.generation, self.rotated, self.late_repeat = self.generation + 1, now, None
            self.keys = [key] if key else []
            self.seen = now if active else self.seen
            return self.generation
        early = now - self.rotated <= GRACE
        if shown == self.generation - 1 and (early or key in self.keys):
            if key and key not in self.keys and len(self.keys) < 4:
                self.keys.append(key)
            if not early and self.late_repeat is None:
                self.late_repeat = now
        elif shown != self.generation:
            self.ended = "refresh_reuse"
            return "reuse"
        self.seen = now if unseen else self.seen
        return self.generation


@dataclass
class Holder:
    """The holder of a refresh token: the user, or a thief who copied it. `key` belongs to the token."""

    session: str
    generation: int
    access: str


class SessionMachine(RuleBasedStateMachine):
    """Logins, refreshes whose responses get lost, thefts, logouts, clock jumps and restarts."""

    holders = Bundle("holders")

    def __init__(self, database_url: str) -> None:
        super().__init__()
        self.database_url = database_url
        self.models: dict[str, Model] = {}
        self.stack = ExitStack()
        self.server = ExitStack()

    @initialize()
    def begin(self) -> None:
        if self.database_url:
            empty(self.database_url)
        folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.settings = Settings(
            _env_file=None,
            data_dir=folder,
            database_url=self.database_url,
            database_timeout=PATIENCE,
            secret=SERVER_SECRET,
            throttle=False,
            keep_ended=3650 * DAY,
            **CHEAP_HASH,
        )
        self.clock = FakeClock()
        self.began = self.clock()
        self.portal = self.stack.enter_context(start_blocking_portal())
        self.tokens: dict[tuple[str, int], str] = {}
        self.start()
        self.portal.call(self.service.sign_up)

    def start(self) -> None:
        self.service = self.server.enter_context(
            self.portal.wrap_async_context_manager(running(self.settings, self.clock))
        )

    @rule(dice=st.integers(1, 5))
    def restart(self, dice: int) -> None:
        """Restart the service, one time in five, because it takes as long as thirty refreshes."""
        if dice == 5:
            self.server.close()
            self.start()

    @precondition(lambda self: len(self.models) < 3)
    @rule(target=holders, remember=st.booleans())
    def log_in(self, remember: bool) -> Holder:
        async def act() -> dict[str, Any]:
            return await self.service.log_in(remember=remember)

        answer = self.portal.call(act)
        now = self.now()
        idle, life = (7 * DAY, 30 * DAY) if remember else (DAY // 2, DAY)
        name = answer["session_id"]
        self.models[name] = Model(now, idle, life, rotated=now, seen=now)
        self.tokens[name, 0] = answer["refresh_token"]
        return Holder(name, 0, answer["access_token"])

    @rule(target=holders, victim=holders)
    def steal(self, victim: Holder) -> Holder:
        return Holder(victim.session, victim.generation, victim.access)

    @rule(seconds=st.sampled_from(LONG), dice=st.integers(1, 5))
    def wait(self, seconds: int, dice: int) -> None:
        """Send nothing for as long as a timeout, one time in five."""
        if dice == 5:
            self.clock.move(seconds)

    @rule(
        holder=holders,
        key=st.sampled_from(["of the token", "of the token", "another", None]),
        active=st.booleans(),
        lost=st.booleans(),
        after=st.sampled_from(SHORT),
    )
    def refresh(self, holder: Holder, key: str | None, active: bool, lost: bool, after: int) -> None:
        """Refresh with a holder's token, and its key, another or none; the response may be lost."""
        self.clock.move(after)
        sent = None if key is None else f"{holder.generation}-{key.replace(' ', '-')}"
        expected = self.models[holder.session].refresh(holder.generation, sent, active, self.now())

        async def act() -> Any:
            return await self.service.refresh(
                self.tokens[holder.session, holder.generation], sent, active=active
            )

        answer = self.portal.call(act)
        if isinstance(expected, str):
            assert refusal(answer) == self.refused(expected)
            return
        assert answer.status_code == 200, answer.text
        assert answer.json()["generation"] == expected
        token = answer.json()["refresh_token"]
        assert self.tokens.setdefault((holder.session, expected), token) == token, "two successors"
        if not lost:
            holder.generation, holder.access = expected, answer.json()["access_token"]

    @rule(holder=holders, dice=st.integers(1, 5))
    def log_out(self, holder: Holder, dice: int) -> None:
        """Log out, one time in five."""
        if dice < 5:
            return
        model = self.models[holder.session]
        model.ended = model.state(self.now()) or "logout"

        async def act() -> int:
            body = {"refresh_token": self.tokens[holder.session, holder.generation]}
            return (await self.service.client.post("/logout", json=body)).status_code

        assert self.portal.call(act) == 204

    @rule(holder=holders)
    def use(self, holder: Holder) -> None:
        """An access token opens the door only while its session is active."""

        async def act() -> Any:
            return await self.service.get("/protected", {"access_token": holder.access})

        over = self.models[holder.session].state(self.now())
        answer = self.portal.call(act)
        if over is None:
            assert answer.status_code == 200 or refusal(answer)[1] == "expired_token"
        else:
            assert answer.status_code == 401

    @invariant()
    def the_rows_are_as_the_model_says(self) -> None:
        columns = (
            "generation, revoke_reason, rotated_at, last_seen_at, repeated_at, length(retry_digests) / 32"
        )
        rows = self.service.rows(f"select id, {columns} from sessions") if self.models else []
        stored = {ids.public("sess", UUID(name)): row for name, *row in rows}
        for name, model in self.models.items():
            revoked_for = None if model.ended in ("idle", "absolute") else model.ended
            moments = [model.rotated, model.seen, model.late_repeat]
            expected = [model.generation, revoked_for, *map(self.stored_moment, moments), len(model.keys)]
            assert stored[name] == expected

    def stored_moment(self, seconds: int | None) -> int | None:
        return None if seconds is None else round((self.began.timestamp() + seconds) * 1_000_000)

    def now(self) -> int:
        return int((self.clock() - self.began).total_seconds())

    def refused(self, why: str) -> tuple[int, str, str | None]:
        if why == "reuse":
            return 401, "refresh_token_reused", None
        return 401, "session_expired" if why in ("idle", "absolute") else "session_revoked", why

    def teardown(self) -> None:
        self.server.close()
        self.stack.close()


def test_sessions_are_as_the_model_says(database_url: str):
    played = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        deadline=None,
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(partial(SessionMachine, database_url), settings=played)
