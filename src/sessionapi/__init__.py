"""A self-hosted session-management service.

`create_app` and `Settings` are imported when they are first used, because `sessionapi.verifier`, which other
services import, needs neither the web framework nor the database.
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI

    from sessionapi.settings import Settings

__all__ = ["Settings", "__version__", "create_app"]
__version__ = version("sessionapi")


def create_app(settings: "Settings | None" = None) -> "FastAPI":
    """Return the ASGI app for any server: `granian --interface asgi --factory sessionapi:create_app`.

    If no settings are given, they are read from the environment. Like `sessionapi serve`, this creates the
    data folder, the server secret, the signing key and, on the embedded database, the schema. Several
    processes may do so at once. Raises StartupError if the service can't start.
    """
    from sessionapi.web import app  # noqa: PLC0415 - see above

    return app.create_app(settings)


def __getattr__(name: str) -> Any:
    """Import `Settings` when it is first used (PEP 562)."""
    if name != "Settings":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sessionapi.settings import Settings  # noqa: PLC0415 - see above

    return Settings


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
