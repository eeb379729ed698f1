"""The services of one command, which works with or without a running server."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sessionapi import ids, logging, settings
from sessionapi.cli.prompts import say
from sessionapi.container import Container, bootstrap, build
from sessionapi.errors import NotFound
from sessionapi.models import User
from sessionapi.storage import database_url

PATIENCE = 60.0
"""Seconds that a statement may take. It is longer than in the server, because no HTTP client is waiting."""

T = TypeVar("T")


def run(work: Callable[[Container], Awaitable[T]], *, abandon_keys: bool = False) -> T:
    """Run `work` with the services, on a database that is prepared as for `serve`."""
    loaded = settings.load()
    loaded = loaded.model_copy(update={"database_timeout": PATIENCE})
    logging.configure(log_format=loaded.log_format, level="warning", cached=False)
    with _report_new_database(loaded):
        return asyncio.run(_connected(loaded, work, abandon_keys=abandon_keys))


def missing_database(loaded: settings.Settings) -> Path | None:
    """Return the file of the embedded database if it does not exist."""
    if not loaded.embedded:
        return None
    path = database_url.sqlite_path(loaded.effective_database_url)
    return None if os.path.exists(path) else path  # noqa: PTH110 - pathlib's raises PermissionError


@contextmanager
def _report_new_database(loaded: settings.Settings) -> Iterator[None]:
    """Report that the command created the database: the operator may be in the wrong directory."""
    missing = missing_database(loaded)
    try:
        yield
    finally:
        if missing and not missing_database(loaded):
            say(
                f"Created a new database at {missing}. If you expected existing data, "
                "check SESSIONAPI_DATA_DIR."
            )


async def _connected(
    loaded: settings.Settings, work: Callable[[Container], Awaitable[T]], *, abandon_keys: bool
) -> T:
    await bootstrap(loaded, abandon_keys=abandon_keys)
    container = build(loaded)
    try:
        return await work(container)
    finally:
        await container.stop()


async def find(container: Container, name: str) -> User:
    """Return the account with this username or id. Raises a NotFound that contains the name.

    A text that looks like an id is read as an id, so that a username cannot stand in for another account.
    """
    user_id = ids.parse("user", name)
    try:
        return await (container.accounts.get(user_id) if user_id else container.accounts.find(name))
    except NotFound:
        raise NotFound(f"The user {name} does not exist. See: sessionapi users list") from None
