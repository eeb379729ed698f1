"""The command line: `sessionapi serve`, `migrate`, `settings`."""

import asyncio
import socket
import sys
from typing import Annotated

import typer
import uvicorn
from rich.console import Console
from uvicorn.supervisors import Multiprocess

from sessionapi import __version__, logs, wiring
from sessionapi import settings as settings_module
from sessionapi.errors import SessionApiError, StartupError
from sessionapi.settings import Settings
from sessionapi.storage import migrations
from sessionapi.web import proxies

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
err = Console(stderr=True, soft_wrap=True, highlight=False)

BACKLOG = 2048
DRAIN_SECONDS = 10
WORKER_PATIENCE = 30
"""Seconds without a sign of life after which a worker is replaced. uvicorn's 5 are also the time that a new
worker has for its imports: on a busy machine all would be killed again and again."""


def main() -> None:
    """Run a command; what it refuses is one line on standard error and exit status 1."""
    try:
        app()
    except SessionApiError as problem:
        err.print(f"sessionapi: {problem.detail}", markup=False)
        sys.exit(1)


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one and prints it.")
    ] = 8000,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 1,
) -> None:
    """Start the service. The first start makes all that it needs."""
    settings = settings_module.load()
    logs.configure(log_format=settings.log_format, level=settings.log_level)
    listener = _listen(host, port)
    asyncio.run(wiring.prepare(settings))
    _announce(settings, listener)
    config = _uvicorn_config(settings, workers)
    if workers == 1:
        uvicorn.Server(config).run(sockets=[listener])
    else:
        Multiprocess(config, sockets=[listener]).run()


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say whether the schema is up to date.")
    ] = False,
) -> None:
    """Bring the database's schema up to date."""
    url = settings_module.load().effective_database_url
    asyncio.run(migrations.check(url) if check else migrations.migrate(url))
    typer.echo("The schema is up to date.")


@app.command()
def settings() -> None:
    """Print all settings with their defaults, as a Markdown table."""
    typer.echo(settings_module.table())


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as problem:
        listener.close()
        raise StartupError(
            f"can't listen on {host} port {port}: {problem.strerror}; try --port 0"
        ) from problem
    return listener


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    where = settings.data_dir.resolve() if settings.embedded else settings.shown_database_url
    typer.echo(f"Listening on {address}")
    typer.echo(f"API page     {address}/docs")
    typer.echo(f"Data         {where}")
    sys.stdout.flush()


def _uvicorn_config(settings: Settings, workers: int) -> uvicorn.Config:
    return uvicorn.Config(
        "sessionapi.web.app:from_environment",
        factory=True,
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=proxies.trusted(settings.trusted_proxies),
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=WORKER_PATIENCE,
        lifespan="on",
    )
