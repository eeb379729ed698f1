"""What is asked of a running service: the addresses, bodies and headers that a run of wrk is given."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher

from benchmarks import fill
from benchmarks.load import look
from benchmarks.processes import PATIENCE
from benchmarks.service import refresh_key
from sessionapi.settings import Settings

JSON = "application/json"
PASSWORD = "correct horse battery"
USERS = 200
"""Who log in, in turn: so many that their sessions don't reach the limit in a run."""
SESSIONS = 20_000


@dataclass(frozen=True)
class Workload:
    """The arguments of a `Run` but for its length."""

    arguments: dict[str, Any]


def protected(url: str, _folder: Path, settings: Settings) -> Workload:
    """Ask for the protected route with a good token."""
    return Workload({"url": f"{url}/protected", "headers": sign_in(url, settings)})


def sign_in(url: str, settings: Settings) -> dict[str, str]:
    """Return the header of somebody who has just logged in, after a look at what it opens.

    After a storm of logins that waits until all those are hashed that the storm has left behind.
    """
    [name] = people(settings, 1)
    answer = httpx.post(
        f"{url}/login", content=login_body(name), headers={"Content-Type": JSON}, timeout=PATIENCE
    )
    headers = {"Authorization": f"Bearer {look(answer, 'access_token')['access_token']}"}
    look(httpx.get(f"{url}/protected", headers=headers), "data", "user_id", "session_id")
    return headers


def renew(url: str, folder: Path, settings: Settings) -> Workload:
    """Refresh many sessions, each with its own token, which stays as it is."""
    filled = fill.fill(settings, refresh_key(), SESSIONS)
    return posts(f"{url}/refresh", folder / "refresh.txt", map(refresh_body, filled.refresh_tokens))


def rotate(url: str, folder: Path, settings: Settings) -> Workload:
    """Refresh so many sessions that each rotates, and none comes twice in a run of some seconds."""
    filled = fill.fill(settings, refresh_key(), 3 * SESSIONS, due=True)
    return posts(f"{url}/refresh", folder / "refresh.txt", map(refresh_body, filled.refresh_tokens))


def login(url: str, folder: Path, settings: Settings) -> Workload:
    """Log in, one user after the other."""
    return posts(f"{url}/login", folder / "logins.txt", map(login_body, people(settings, USERS)))


def posts(url: str, file: Path, bodies: Iterable[str], *, kind: str = JSON, once: bool = False) -> Workload:
    """Post the bodies in turn, again and again, or each `once` until all are answered."""
    file.write_text("\n".join(bodies) + "\n")
    often = ["once"] if once else []
    return Workload({"url": url, "script": "bodies.lua", "arguments": [str(file), kind, *often]})


def login_body(username: str) -> str:
    """Return what a client sends to log in."""
    return json.dumps({"username": username, "password": PASSWORD})


def refresh_body(token: str) -> str:
    """Return what a client sends to refresh."""
    return json.dumps({"refresh_token": token})


def people(settings: Settings, count: int) -> list[str]:
    """Insert users with the password of all benchmarks, at the cost that the settings ask for."""
    hasher = PasswordHasher(time_cost=settings.hash_time, memory_cost=settings.hash_memory_kib, parallelism=1)
    return fill.fill(settings, refresh_key(), count, password_hash=hasher.hash(PASSWORD)).usernames
