"""Structured logs, as text on a terminal and as JSON elsewhere, with one line per request and no secrets.

Nothing is redacted. Secrets stay out of the logs because they are never passed to a log call. Tracebacks are
plain, because those of structlog show the values of local variables, including passwords.
"""

import io
import json
import logging
import re
import sys
import threading
from contextvars import ContextVar
from typing import Any, TextIO

import structlog
from pydantic_core import to_json
from structlog.types import EventDict, ExcInfo, Processor

from sessionapi.clock import system_clock

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""The id of the current request, which every log line of that request contains."""


def configure(*, log_format: str, level: str, cached: bool = True) -> None:
    """Set up logging for the process.

    `log_format` is `text`, `json`, or `auto`, which means text on a terminal and JSON elsewhere. `cached`
    loggers are faster, but keep the configuration from their first use.
    """
    human = sys.stderr.isatty() if log_format == "auto" else log_format == "text"
    renderer: list[Processor] = (
        [_escape_values, structlog.dev.ConsoleRenderer(exception_formatter=_plain_traceback)]
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(_json)]
    )
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[_add_context, *renderer],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=cached,
    )
    _route_standard_logging(renderer, number)
    if not human:
        _route_python_reports()


def escape_unprintable(text: str) -> str:
    """Escape the characters that could control a terminal, such as controls and writing directions."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _add_context(_logger: object, method: str, event: EventDict) -> EventDict:
    """Add the request id, the level and the time, in one step because every line passes through it."""
    of = request_id.get()
    if of is not None:
        event["request_id"] = of
    event["level"] = "error" if method == "exception" else method
    event["timestamp"] = system_clock().isoformat(timespec="microseconds").replace("+00:00", "Z")
    return event


def _escape_values(_logger: object, _method: str, event: EventDict) -> EventDict:
    """Escape all strings, because a client chooses some of them, such as the path of a request."""
    return {
        name: escape_unprintable(value) if isinstance(value, str) else value for name, value in event.items()
    }


def _plain_traceback(file: TextIO, exc_info: ExcInfo) -> None:
    """Write a traceback with escaped lines, because an exception may repeat what a client sent."""
    plain = io.StringIO()
    structlog.dev.plain_traceback(plain, exc_info)
    file.write("\n".join(escape_unprintable(line) for line in plain.getvalue().split("\n")))


def _json(event: dict[str, Any], **_options: Any) -> str:
    """Return one line of JSON, with escapes for all characters that could control a terminal or end a line.

    Such characters occur only inside strings, so the escaped text is the same JSON.
    """
    try:
        text = to_json(event, fallback=str).decode()
    except ValueError:  # a lone surrogate: the standard library escapes it
        return json.dumps(event, default=str)
    return text if text.isprintable() else _UNPRINTABLE.sub(_escaped, text)


def _escaped(found: re.Match[str]) -> str:
    character = found.group()
    return character if character.isprintable() else json.dumps(character)[1:-1]


def _route_standard_logging(renderer: list[Processor], level: int) -> None:
    """Format the log lines of libraries (uvicorn, alembic) like ours."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[_add_context],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.WARNING))


def _route_python_reports() -> None:
    """Log what Python would write to standard error: warnings and uncaught exceptions."""
    logging.captureWarnings(True)  # noqa: FBT003 - its only argument
    sys.excepthook = lambda *error: _log_uncaught("uncaught exception", error)
    sys.unraisablehook = lambda report: _log_uncaught(
        "uncaught exception in a destructor", (report.exc_type, report.exc_value, report.exc_traceback)
    )
    threading.excepthook = lambda report: _log_uncaught(
        "uncaught exception in a thread", (report.exc_type, report.exc_value, report.exc_traceback)
    )


def _log_uncaught(event: str, error: Any) -> None:
    if error[0] is not SystemExit:  # a thread may exit with it
        logging.getLogger(__name__).critical(event, exc_info=error)
