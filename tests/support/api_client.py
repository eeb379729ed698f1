"""Calls of the HTTP API."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
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


def tokens_of(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()


@dataclass
class ApiClient:
    """The calls that tests make most, sent with the method `request` of an httpx client."""

    request: Callable[..., Any]
    url: str = ""

    def send(
        self, method: str, path: str, tokens: dict[str, Any] | str = "", body: Any = None, **headers: str
    ) -> Any:
        """Send a request, with an access token unless `tokens` is empty; return the response."""
        headers = {**(bearer(tokens) if tokens else {}), **headers}
        return self.request(method, f"{self.url}{path}", headers=headers, json=body)

    def get(self, path: str, tokens: dict[str, Any] | str = "") -> Any:
        return self.send("GET", path, tokens)

    def post(self, path: str, **body: Any) -> Any:
        """Send a JSON body."""
        return self.send("POST", path, body=body)

    def sign_up(self, username: str = "ada", password: str = PASSWORD, **more: Any) -> Any:
        """Create an account and return its tokens."""
        return self._tokens(self.post("/signup", username=username, password=password, **more), 201)

    def log_in(self, username: str = "ada", password: str = PASSWORD, **more: Any) -> Any:
        """Log in and return the tokens."""
        return self._tokens(self.post("/login", username=username, password=password, **more), 200)

    def refresh(self, tokens: dict[str, Any] | str, key: str | None = None, **body: Any) -> Any:
        """Refresh with a token in the body; `key` is the Idempotency-Key. Return the response."""
        token = tokens if isinstance(tokens, str) else tokens["refresh_token"]
        headers = {"Idempotency-Key": key} if key else {}
        return self.send("POST", "/refresh", body={"refresh_token": token, **body}, **headers)

    def _tokens(self, answer: Any, status: int) -> Any:
        return tokens_of(answer, status)


class AsyncApiClient(ApiClient):
    """The same calls over an async httpx client. Each is awaited."""

    async def _tokens(self, answer: Any, status: int) -> Any:
        return tokens_of(await answer, status)


@asynccontextmanager
async def crowded(
    connections: int, *, kept: int | None = None, base_url: str = "", timeout: float = PATIENCE
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client for many requests at once. It keeps all its connections, or the given number."""
    kept = connections if kept is None else kept
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=kept)
    async with httpx.AsyncClient(base_url=base_url, timeout=timeout, limits=limits) as client:
        yield client
