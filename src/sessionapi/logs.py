"""Structured logs: for people on a terminal, JSON elsewhere; one line a request, no secret in any.

Nothing here scrubs: a secret is kept out by never being handed to a log call. Traces are plain ones, for the
library's own show the values of local variables, a password among them.
"""

import logging
import sys

import structlog
from structlog.types import Processor


def configure(*, log_format: str, level: str, cached: bool = True) -> None:
    """Set up logging for the process; `log_format` is `text`, `json`, or `auto` (by the terminal).

    `cached` loggers are faster, and keep what was configured when they were first used.
    """
    human = sys.stderr.isatty() if log_format == "auto" else log_format == "text"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: list[Processor] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=cached,
    )
    _route_standard_logging(shared, renderer, number)


def _route_standard_logging(shared: list[Processor], renderer: list[Processor], level: int) -> None:
    """Give the lines of libraries (uvicorn, alembic) the same form as ours."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))
