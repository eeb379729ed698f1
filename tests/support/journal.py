"""Clients that record their requests and the responses, and later compare them with the state of the service.

The clients follow `docs/refresh.md`. They send one Idempotency-Key for each refresh token, repeat the same
attempt until they get a response, and draw no conclusion from a lost response or a 5xx.
"""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from tests.support.api_client import PASSWORD, ApiClient

PATIENCE = 60
"""Seconds within which a service that was killed must respond again."""
Call = Callable[[ApiClient], httpx.Response]


@dataclass
class Place:
    """The URL of the service, which changes at a restart."""

    url: str = ""


@dataclass
class Device:
    """One session of a client: its newest tokens, the key of its refresh token, and its end."""

    tokens: dict[str, Any]
    key: str
    end_sent: bool = False
    end_answered: bool = False

    @property
    def held(self) -> bool:
        return not self.end_sent


@dataclass
class Person:
    """A user of the service with several devices, of which the first stays logged in until the end."""

    name: str
    place: Place
    dice: random.Random
    answered: Counter[str] = field(default_factory=Counter)
    devices: list[Device] = field(default_factory=list)
    signed_up: bool = False
    wrong: list[str] = field(default_factory=list)

    def live(self, stop: threading.Event) -> None:
        """Do one thing after the other."""
        with httpx.Client(timeout=5) as wire:
            while not stop.is_set():
                self._act(wire)

    def compare(self) -> None:
        """Request everything that was acknowledged, and record differences in `wrong`."""
        with httpx.Client(timeout=10) as wire:
            for device in self.devices:
                if device.held:
                    self._insist(wire, device)
                elif device.end_answered:
                    self._expect_end(wire, device)
            if self.signed_up:
                answer = self._until_answered(wire, partial(self._with_password, "/login"))
                self._expect(answer, 200, "the account is lost")

    def _act(self, wire: httpx.Client) -> None:
        if not self.signed_up:
            self._sign_up(wire)
            return
        held = [device for device in self.devices if device.held]
        what = self.dice.choices(("refresh", "login", "logout", "revoke"), (6, 2, 1, 1))[0]
        if not held or (what == "login" and len(held) < 4):
            self._start(wire, "/login")
        elif what == "logout" and len(held) > 1:
            self._log_out(wire, held[1])
        elif what == "revoke" and len(held) > 1:
            self._revoke(wire, held[0], held[-1])
        else:
            self._refresh(wire, self.dice.choice(held))

    def _sign_up(self, wire: httpx.Client) -> None:
        answer = self._start(wire, "/signup")
        if answer is not None and answer.status_code == 409:  # done by an attempt whose response was lost
            self.signed_up = True

    def _start(self, wire: httpx.Client, path: str) -> httpx.Response | None:
        answer = self._send(wire, partial(self._with_password, path))
        if answer is not None and answer.is_success:
            self.signed_up = True
            self.answered[path] += 1
            self.devices.append(Device(answer.json(), self._new_key()))
        return answer

    def _with_password(self, path: str, api: ApiClient) -> httpx.Response:
        return api.post(path, username=self.name, password=PASSWORD)

    def _refresh(self, wire: httpx.Client, device: Device) -> httpx.Response | None:
        """Make one attempt. A response with another generation brings a new key; a 401 is a lost session."""
        answer = self._send(wire, lambda api: api.refresh(device.tokens, device.key))
        if answer is None:
            return None
        if self._expect(answer, 200, f"the session {device.tokens['session_id']} is lost"):
            self.answered["/refresh"] += 1
            if answer.json()["generation"] != device.tokens["generation"]:
                self.answered["rotation"] += 1
                device.key = self._new_key()
            device.tokens = answer.json()
        return answer

    def _log_out(self, wire: httpx.Client, device: Device) -> None:
        device.end_sent = True
        answer = self._send(
            wire, lambda api: api.post("/logout", refresh_token=device.tokens["refresh_token"])
        )
        if answer is not None and self._expect(answer, 204, "a logout is refused"):
            device.end_answered = True
            self.answered["/logout"] += 1

    def _revoke(self, wire: httpx.Client, device: Device, other: Device) -> None:
        """End another device's session with this one's access token, which is renewed first."""
        if self._refresh(wire, device) is None:
            return
        other.end_sent = True
        path = f"/sessions/{other.tokens['session_id']}"
        answer = self._send(wire, lambda api: api.send("DELETE", path, device.tokens))
        if answer is not None and self._expect(answer, 204, "a revocation is refused"):
            other.end_answered = True
            self.answered["revocation"] += 1

    def _insist(self, wire: httpx.Client, device: Device) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._refresh(wire, device) is None:
            if time.monotonic() > deadline:
                self.wrong.append("no answer to a refresh")
                return

    def _expect_end(self, wire: httpx.Client, device: Device) -> None:
        answer = self._until_answered(wire, lambda api: api.refresh(device.tokens))
        if self._expect(answer, 401, "a session that was ended is alive"):
            self._expect_code(answer, "session_revoked")

    def _until_answered(self, wire: httpx.Client, call: Call) -> httpx.Response | None:
        deadline = time.monotonic() + PATIENCE
        while (answer := self._send(wire, call)) is None and time.monotonic() < deadline:
            pass
        return answer

    def _send(self, wire: httpx.Client, call: Call) -> httpx.Response | None:
        """Send one request. Return None without a response, or for a 5xx, which proves nothing."""
        try:
            answer = call(ApiClient(wire.request, self.place.url))
        except httpx.TransportError:
            time.sleep(0.02)  # as a client does before it retries
            return None
        if answer.status_code >= 500:
            self.answered[f"{answer.status_code}"] += 1
            time.sleep(0.02)
            return None
        return answer

    def _expect(self, answer: httpx.Response | None, status: int, otherwise: str) -> bool:
        if answer is not None and answer.status_code == status:
            return True
        said = "no answer" if answer is None else f"{answer.status_code} {answer.text}"
        self.wrong.append(f"{self.name}: {otherwise}: {said}")
        return False

    def _expect_code(self, answer: httpx.Response | None, code: str) -> None:
        if answer is not None and answer.json()["code"] != code:
            self.wrong.append(f"{self.name}: not {code}: {answer.text}")

    def _new_key(self) -> str:
        return self.dice.randbytes(16).hex()


@dataclass
class Crowd:
    """Users who are active at the same time, each in a thread."""

    place: Place
    persons: list[Person] = field(default_factory=list)

    def grow(self, count: int) -> list[Person]:
        """Add users and return them."""
        dice = random.Random(len(self.persons))
        born = [Person(f"p{dice.randbytes(6).hex()}", self.place, dice) for _ in range(count)]
        self.persons += born
        return born

    def compare(self, some: Iterable[Person] | None = None) -> None:
        """Let all users compare, or only the given ones; fail with all differences."""
        chosen = self.persons if some is None else list(some)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(Person.compare, chosen))
        wrong = [line for person in chosen for line in person.wrong]
        assert wrong == [], "\n".join(wrong)

    def answered(self) -> Counter[str]:
        """Return the number of acknowledged requests of each kind."""
        return sum((person.answered for person in self.persons), Counter())
