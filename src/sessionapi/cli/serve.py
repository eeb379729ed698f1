"""`sessionapi serve`: run the service in one process, or in several on one socket."""

import asyncio
import errno
import resource
import socket
import sys
from typing import Annotated
from urllib.parse import urlsplit

import structlog
import typer
import uvicorn

from sessionapi import container, logging
from sessionapi import settings as settings_module
from sessionapi.cli import workers as workers_module
from sessionapi.errors import StartupError
from sessionapi.settings import Settings
from sessionapi.settings_warnings import suspicious

log = structlog.get_logger()

BACKLOG = 2048
DRAIN_SECONDS = 10
OTHER_PORT = "try another port, for example `sessionapi serve --port 8001`"
OTHER_HOST = (
    "try another host, for example `sessionapi serve --host 127.0.0.1` or `sessionapi serve --host ::1`"
)
WORKER_PATIENCE = 30
"""Seconds without a heartbeat after which a worker is replaced. A new worker must also finish its imports in
this time. With uvicorn's default of 5, all workers would be killed repeatedly on a busy machine."""


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Port to listen on; 0 picks a free one and prints it.",
            show_default="PORT, or 8000",
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Number of processes.")] = 1,
) -> None:
    """Start the service. The first start creates the data folder, secret, schema and signing key."""
    settings = settings_module.load()
    logging.configure(log_format=settings.log_format, level=settings.log_level)
    for text in suspicious(settings):
        log.warning(text)
    _raise_open_files_limit()
    listener = _listen(host, settings.port if port is None else port)
    asyncio.run(container.bootstrap(settings))
    config = _uvicorn_config(workers)
    if workers == 1:
        _announce(settings, listener)
        uvicorn.Server(config).run(sockets=[listener])
        return
    with workers_module.metrics_folder(needed=settings.metrics) as metrics:
        _announce(settings, listener)
        workers_module.run(config, listener, metrics)


def _listen(host: str, port: int) -> socket.socket:
    try:
        return _bound(host, port)
    except (OSError, TypeError, ValueError) as problem:  # the last two if the name can't be encoded (IDNA)
        reason = problem.strerror if isinstance(problem, OSError) else "not a valid host name"
        taken = isinstance(problem, OSError) and problem.errno in (errno.EADDRINUSE, errno.EACCES)
        advice = OTHER_PORT if taken else OTHER_HOST
        raise StartupError(f"can't listen on {host} port {port}: {reason}; {advice}") from problem


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _announce(settings: Settings, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    where = settings.data_dir.resolve() if settings.embedded else settings.shown_database_url
    typer.echo(f"Listening on {address}")
    typer.echo(f"API page     {address}/docs")
    typer.echo(f"Data         {logging.escape_unprintable(str(where))}")
    sys.stdout.flush()
    clients_use = urlsplit(settings.public_url)
    if clients_use.scheme == "http" and (clients_use.port or 80) != port:
        log.info(
            "PUBLIC_URL has another port; this is correct only behind a proxy", public_url=settings.public_url
        )


def _raise_open_files_limit() -> None:
    """Raise the limit on open files to the hard limit, because many systems start processes with 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError) as problem:  # macOS has no hard limit, and rejects "unlimited" as a soft one
        log.warning("the limit of open files could not be raised", limit=soft, error=str(problem))


def _uvicorn_config(workers: int) -> uvicorn.Config:
    return uvicorn.Config(
        "sessionapi.web.app:from_environment",
        factory=True,
        http="sessionapi.web.http_protocol:HttpProtocol",
        ws="none",
        workers=workers,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # TRUSTED_PROXIES is read by the app itself
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_worker_healthcheck=WORKER_PATIENCE,
        lifespan="on",
    )
