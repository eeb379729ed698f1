"""Requests to the HTTP API."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from tests.support.waiting import PATIENCE

PASSWORD = "correct horse battery"


def bearer(tokens: dict[str, Any] | str) -> dict[str, str]:
    text = tokens if isinstance(tokens, str) else tokens["access_token"]
    return {"Authorization": f"Bearer {text}"}


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    """The status, code and reason of a problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert answer.status_code == body["status"]
    return body["status"], body["code"], body.get("reason")


@asynccontextmanager
async def crowded(
    connections: int, *, kept: int | None = None, base_url: str = "", timeout: float = PATIENCE
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client for many requests at once. It keeps all its connections, or the given number."""
    kept = connections if kept is None else kept
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=kept)
    async with httpx.AsyncClient(base_url=base_url, timeout=timeout, limits=limits) as client:
        yield client


async def sign_up_at(client: httpx.AsyncClient, username: str, url: str = "") -> dict[str, Any]:
    """Create an account over HTTP while the client has other requests under way; return its tokens."""
    answer = await client.post(f"{url}/signup", json={"username": username, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return answer.json()
