"""How a command reaches the operations: over parts of its own, beside a running server or without one."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from sessionapi import container, ids, logging, settings
from sessionapi.cli.prompts import say
from sessionapi.container import Container
from sessionapi.errors import NotFound
from sessionapi.models import User
from sessionapi.storage import database_url

PATIENCE = 60.0
"""Seconds that a statement may take here: nobody waits for the answer of a request."""

T = TypeVar("T")


def run(work: Callable[[Container], Awaitable[T]], *, abandon_keys: bool = False) -> T:
    """Do some work over connected parts, on a database that is prepared as `serve` does it."""
    loaded = settings.load()
    loaded = loaded.model_copy(update={"database_timeout": PATIENCE})
    logging.configure(log_format=loaded.log_format, level="warning", cached=False)
    with _a_new_database_told(loaded):
        return asyncio.run(_connected(loaded, work, abandon_keys=abandon_keys))


def missing_database(loaded: settings.Settings) -> Path | None:
    """Return the file of an embedded database that isn't there."""
    if not loaded.embedded:
        return None
    path = database_url.sqlite_path(loaded.effective_database_url)
    return None if os.path.exists(path) else path  # noqa: PTH110 - pathlib's raises where it may not look


@contextmanager
def _a_new_database_told(loaded: settings.Settings) -> Iterator[None]:
    """Say that a command has made its database: in another folder than the server's it finds nobody."""
    missing = missing_database(loaded)
    try:
        yield
    finally:
        if missing and not missing_database(loaded):
            say(f"There was no database {missing}: it is new, and empty but for what this command did.")


async def _connected(
    loaded: settings.Settings, work: Callable[[Container], Awaitable[T]], *, abandon_keys: bool
) -> T:
    await container.bootstrap(loaded, abandon_keys=abandon_keys)
    parts = container.build(loaded)
    try:
        return await work(parts)
    finally:
        await parts.stop()


async def find(parts: Container, name: str) -> User:
    """Return the account of a username or of an id; NotFound says which was meant.

    What looks like an id is one, so that nobody takes another's place by the choice of a name.
    """
    user_id = ids.parse("user", name)
    try:
        return await (parts.accounts.get(user_id) if user_id else parts.accounts.find(name))
    except NotFound:
        raise NotFound(f"There is no user {name}.") from None
