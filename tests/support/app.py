"""The whole app in the process of the test, without a socket."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from sessionapi.container import Container, bootstrap, build
from sessionapi.sessions.actors import OPERATOR
from sessionapi.settings import Settings
from sessionapi.web import app as web
from tests.support.api_client import AsyncApiClient
from tests.support.clock import FakeClock
from tests.support.database import rows
from tests.support.settings import SERVER_SECRET
from tests.support.written import WRITTEN


class Running(AsyncApiClient):
    """An app in this process, with a client that talks to it over ASGI."""

    def __init__(self, container: Container, client: httpx.AsyncClient, clock: FakeClock) -> None:
        super().__init__(client.request)
        self.container, self.client, self.clock = container, client, clock

    async def administrator(self) -> dict[str, Any]:
        """Create the administrator root and return its tokens."""
        await self.sign_up("root")
        await self.set_roles("root", ["admin"])
        return await self.log_in("root")

    async def set_roles(self, username: str, roles: list[str]) -> None:
        """Change a user's roles as an operator does."""
        user = await self.container.accounts.find(username)
        await self.container.accounts.change(user.id, OPERATOR, {"roles": roles})

    def rows(self, query: str) -> list[tuple]:
        """Return the rows of a query that the test runs itself, independently of the app."""
        return rows(self.container.settings.effective_database_url, query)


@asynccontextmanager
async def running(settings: Settings, clock: FakeClock) -> AsyncIterator[Running]:
    """Start the whole app as a server would, without a socket."""
    if is_prepared(settings, clock):
        settings.data_dir.mkdir(parents=True)
        (settings.data_dir / "sessionapi.db").write_bytes(prepared_file(settings.algorithm))
    else:
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


def is_prepared(settings: Settings, clock: FakeClock) -> bool:
    """Return whether `prepared_file` is what `bootstrap` would create for these settings."""
    secret = settings.secret and settings.secret.get_secret_value()
    is_new = not settings.database_url and not settings.data_dir.exists()
    return is_new and secret == SERVER_SECRET and clock() == FakeClock().now


@cache
def prepared_file(algorithm: str) -> bytes:
    """An SQLite file with schema and signing key, because making them takes as long as a typical test."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as thread:
        settings = Settings(_env_file=None, data_dir=folder, secret=SERVER_SECRET, algorithm=algorithm)
        thread.submit(asyncio.run, bootstrap(settings, FakeClock())).result()
        return Path(folder, "sessionapi.db").read_bytes()
