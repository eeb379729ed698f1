"""The requests to a running service: the URLs, bodies and headers that a run of wrk is given."""

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
"""Users that log in, in turn: enough of them that none reaches the limit of sessions in a run."""
SESSIONS = 20_000


@dataclass(frozen=True)
class Workload:
    """The arguments of a `Run` except for its length."""

    arguments: dict[str, Any]


def protected(url: str, _folder: Path, settings: Settings) -> Workload:
    """Request the protected route with a valid token."""
    return Workload({"url": f"{url}/protected", "headers": sign_in(url, settings)})


def sign_in(url: str, settings: Settings) -> dict[str, str]:
    """Log in, check that the token opens the protected route, and return its header.

    After a storm of logins, this waits until all passwords that the storm has left in the queue are hashed.
    """
    [name] = people(settings, 1)
    answer = httpx.post(
        f"{url}/login", content=login_body(name), headers={"Content-Type": JSON}, timeout=PATIENCE
    )
    headers = {"Authorization": f"Bearer {look(answer, 'access_token')['access_token']}"}
    look(httpx.get(f"{url}/protected", headers=headers), "data", "user_id", "session_id")
    return headers


def renew(url: str, folder: Path, settings: Settings) -> Workload:
    """Refresh many sessions, each with its newest token, which doesn't change."""
    filled = fill.fill(settings, refresh_key(), SESSIONS)
    return posts(f"{url}/refresh", folder / "refresh.txt", map(refresh_body, filled.refresh_tokens))


def rotate(url: str, folder: Path, settings: Settings) -> Workload:
    """Refresh so many sessions that each one rotates, and none is refreshed twice in a short run."""
    filled = fill.fill(settings, refresh_key(), 3 * SESSIONS, due=True)
    return posts(f"{url}/refresh", folder / "refresh.txt", map(refresh_body, filled.refresh_tokens))


def login(url: str, folder: Path, settings: Settings) -> Workload:
    """Log in, one user after the other."""
    return posts(f"{url}/login", folder / "logins.txt", map(login_body, people(settings, USERS)))


def posts(url: str, file: Path, bodies: Iterable[str], *, kind: str = JSON, once: bool = False) -> Workload:
    """Post the bodies in turn, either again and again or each `once` until all have a response."""
    file.write_text("\n".join(bodies) + "\n")
    often = ["once"] if once else []
    return Workload({"url": url, "script": "bodies.lua", "arguments": [str(file), kind, *often]})


def login_body(username: str) -> str:
    """Return the body of a login request."""
    return json.dumps({"username": username, "password": PASSWORD})


def refresh_body(token: str) -> str:
    """Return the body of a refresh request."""
    return json.dumps({"refresh_token": token})


def people(settings: Settings, count: int) -> list[str]:
    """Insert users with the password of all benchmarks, at the hashing cost that the settings require."""
    hasher = PasswordHasher(time_cost=settings.hash_time, memory_cost=settings.hash_memory_kib, parallelism=1)
    return fill.fill(settings, refresh_key(), count, password_hash=hasher.hash(PASSWORD)).usernames
