"""The service as it is shipped, as a process: log lines on (into a file), metrics on, one worker."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.processes import SERVER_CORE, Process, serving
from sessionapi import container
from sessionapi.keys.server_secret import ServerSecret
from sessionapi.settings import Settings
from sessionapi.storage import migrations

SECRET = "the server secret of the benchmarks: nobody else knows it"
LOGINS_ALLOWED = 100_000
"""Attempts a minute of one IP address and of one user, because all load comes from one address. The limits
stay on, with these values.
"""


def settings_of(folder: Path, **changes: Any) -> Settings:
    """Return the defaults, except for the location of the data and the given `changes`."""
    return Settings(
        _env_file=None,
        data_dir=folder / "var",
        secret=SECRET,
        metrics=True,
        login_per_address=LOGINS_ALLOWED,
        password_checks_per_user=LOGINS_ALLOWED,
        **changes,
    )


def prepare(settings: Settings) -> None:
    """Create the schema and the signing key, as the first start would."""
    if not settings.embedded:
        asyncio.run(migrations.migrate(settings.effective_database_url))
    asyncio.run(container.bootstrap(settings))


def refresh_key() -> bytes:
    """Return the key that this server makes refresh tokens with."""
    return ServerSecret(SECRET.encode()).derive("refresh token")[0]


@contextlib.contextmanager
def running(folder: Path, *, cores: str = SERVER_CORE, workers: int = 1, **changes: Any) -> Iterator[Process]:
    """Run `sessionapi serve` until the block ends; its log lines go into a file in the folder."""
    settings = settings_of(folder, **changes)
    command = [sys.executable, "-m", "sessionapi", "serve", "--port", "{port}", "--workers", str(workers)]
    with serving(
        command, folder / "service.log", ready="/readyz", cores=cores, environment=_environment(settings)
    ) as process:
        yield process


def _environment(settings: Settings) -> dict[str, str]:
    """Return the environment that leads to these settings, with secrets in plain text."""
    changed = settings.model_dump(exclude_defaults=True)
    changed["secret"] = SECRET
    return {f"SESSIONAPI_{name.upper()}": str(value) for name, value in changed.items()}
