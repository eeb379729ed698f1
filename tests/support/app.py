"""The whole app in the process of the test, without a socket."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from sessionapi.container import Container, bootstrap, build
from sessionapi.settings import Settings
from sessionapi.storage import migrations
from sessionapi.web import app as web
from tests.support.api_client import PASSWORD, bearer
from tests.support.clock import FakeClock
from tests.support.database import rows
from tests.support.written import WRITTEN


@dataclass
class Running:
    """An app in this process, with a client that talks to it over ASGI."""

    container: Container
    client: httpx.AsyncClient
    clock: FakeClock

    async def sign_up(self, username: str = "ada", password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        answer = await self.client.post("/signup", json={"username": username, "password": password, **more})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def log_in(self, username: str = "ada", password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        answer = await self.client.post("/login", json={"username": username, "password": password, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def get(self, path: str, tokens: dict[str, Any]) -> httpx.Response:
        return await self.client.get(path, headers=bearer(tokens))

    async def send(
        self, method: str, path: str, tokens: dict[str, Any], body: Any = None, **headers: str
    ) -> httpx.Response:
        return await self.client.request(method, path, headers={**bearer(tokens), **headers}, json=body)

    async def refresh(
        self, tokens: dict[str, Any] | str, key: str | None = None, **body: Any
    ) -> httpx.Response:
        """Refresh with a token in the body; `key` is the Idempotency-Key."""
        text = tokens if isinstance(tokens, str) else tokens["refresh_token"]
        headers = {"Idempotency-Key": key} if key else {}
        return await self.client.post("/refresh", json={"refresh_token": text, **body}, headers=headers)

    def rows(self, query: str) -> list[tuple]:
        """Return the rows of a query that the test runs itself, independently of the app."""
        return rows(self.container.settings.effective_database_url, query)


@asynccontextmanager
async def running(settings: Settings, clock: FakeClock) -> AsyncIterator[Running]:
    """Start the whole app as a server would, without a socket."""
    if settings.embedded and not settings.data_dir.exists():
        settings.data_dir.mkdir(parents=True)
        (settings.data_dir / "sessionapi.db").write_bytes(migrated_file())
    await bootstrap(settings, clock)
    container = build(settings, clock)
    app = web.create(container)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport,
            base_url="http://localhost:8000",
            event_hooks={"response": [WRITTEN.saw]},
        ) as client,
    ):
        yield Running(container, client, clock)
        WRITTEN.add("the metrics", container.metrics.render().decode())
    WRITTEN.add("the audit table", str(rows(settings.effective_database_url, "select * from events")))


@cache
def migrated_file() -> bytes:
    """An SQLite file with the schema, because the migrations would take as long as many a test."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as beside:
        beside.submit(asyncio.run, migrations.migrate(f"sqlite:///{folder}/a.db")).result()
        return Path(folder, "a.db").read_bytes()
