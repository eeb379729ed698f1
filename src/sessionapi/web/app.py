"""The ASGI app: routes, error handlers and the layers around them."""

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Lifespan

from sessionapi import __version__, logging
from sessionapi.container import Container, bootstrap, build
from sessionapi.settings import Settings, load
from sessionapi.settings_warnings import suspicious
from sessionapi.web import cookies, graceful_shutdown, middleware, openapi
from sessionapi.web.connection_limits import STATE, Connections
from sessionapi.web.periodic import repeat
from sessionapi.web.routes import (
    account,
    admin,
    discovery,
    docs,
    health,
    login,
    pages,
    session_client,
    sessions,
)

KEYS_INTERVAL = 60
"""Seconds between two checks of the age of the signing keys."""
PURGE_INTERVAL = 300
PUBLIC_PATHS = session_client.PATHS | discovery.PATHS
"""Files without secrets, which pages of every origin may read."""
STOP_SECONDS = 5
"""Seconds that a round of background work may take to finish when the server stops."""

log = structlog.get_logger()

DESCRIPTION = """
Log in once, stay logged in, on one-minute JWTs that every service verifies offline.

1. `POST /signup` or `POST /login` gives an access token (60 s) and a refresh token.
2. Send the access token as `Authorization: Bearer TOKEN`; **Authorize** above does it on this page.
3. `POST /refresh` renews it.

Every error is `application/problem+json` (RFC 9457) with a stable `code`.
"""


class Service(FastAPI):
    """The FastAPI app, with our middleware (middleware.py) and FastAPI's AsyncExitStackMiddleware.

    FastAPI's other layers handle exceptions and limit bodies, as ours do, and observe exceptions for
    telemetry. They took 7 % of the time of a request (measured).
    """

    def build_middleware_stack(self) -> ASGIApp:
        """Return the routes inside the middleware."""
        return middleware.surround(AsyncExitStackMiddleware(self.router), self.state.sessionapi, PUBLIC_PATHS)


def create(container: Container, lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """Return the ASGI app that uses this container."""
    app = Service(
        title="sessionapi",
        version=__version__,
        description=DESCRIPTION,
        license_info={"name": "MIT", "identifier": "MIT"},
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan or _lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # /metrics and the log are ours
    )
    app.state.sessionapi = container
    app.router.routes.extend(_routes(pages_too=container.settings.pages))
    app.mount("/static/swagger", docs.SWAGGER)
    app.mount("/static", docs.OWN)
    _finish_openapi(app)
    return app


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the app for any ASGI server, after preparing what it needs (`sessionapi.create_app`)."""
    settings = settings or load()
    logging.configure(log_format=settings.log_format, level=settings.log_level)
    for text in suspicious(settings):
        log.warning(text)
    with ThreadPoolExecutor(1) as thread:  # the caller may run in an event loop, which asyncio.run refuses
        thread.submit(asyncio.run, bootstrap(settings)).result()
    return create(build(settings))


def from_environment() -> FastAPI:
    """Return the app for a process of `sessionapi serve`, which has already prepared everything."""
    loaded = load()
    logging.configure(log_format=loaded.log_format, level=loaded.log_level)
    return create(build(loaded), _in_a_process)


def _routes(*, pages_too: bool) -> Iterator[BaseRoute]:
    """Yield the routes as their modules built them, the busiest ones first.

    `include_router` would build each of them a second time, which takes 30 ms, and match each request twice.
    """
    parts = [account.direct, sessions.direct]
    parts += [
        part.router for part in (login, sessions, account, admin, discovery, health, session_client, docs)
    ]
    if pages_too:
        parts.append(pages.router)
    for part in parts:
        yield from part.routes


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    container: Container = app.state.sessionapi
    if not container.settings.throttle:
        log.warning("THROTTLE=off: anybody may guess passwords without limit; for load tests only")
    await container.start()
    ended = asyncio.Event()
    background = [
        asyncio.create_task(repeat("poll", container.state_sync.sync, container.state_sync.interval, ended)),
        asyncio.create_task(repeat("keys", container.keys.keep_up, KEYS_INTERVAL, ended)),
        asyncio.create_task(repeat("purge", container.purge.run, PURGE_INTERVAL, ended)),
        asyncio.create_task(repeat("marks", container.marks.tidy, PURGE_INTERVAL, ended)),
    ]
    try:
        yield
    finally:
        ended.set()
        await asyncio.wait(background, timeout=STOP_SECONDS)
        await container.stop()


@asynccontextmanager
async def _in_a_process(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """Run the lifespan in a process of `sessionapi serve`, which signals stop gracefully."""
    container: Container = app.state.sessionapi
    _spare_the_collector()
    with graceful_shutdown.watched(container.shutting_down, container.settings.stop_delay):
        async with _lifespan(app):
            yield {STATE: Connections(container.settings)}


def _spare_the_collector() -> None:
    """Run the garbage collector rarely, and exclude the objects that exist after the imports.

    A request leaves almost no reference cycles. With the default thresholds, the collector took 8 % of a
    refresh (measured).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def _finish_openapi(app: FastAPI) -> None:
    plain = app.openapi

    @cache
    def finished() -> dict[str, Any]:
        return openapi.finish(plain(), cookies.name(app.state.sessionapi.settings))

    app.openapi = finished  # type: ignore[method-assign]
