"""Session management that a team hosts itself.

`create_app` and `Settings` import what they need when they are first used: `sessionapi.verifier`, in other
services, needs neither the web framework nor the database.
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

    Without settings they are read from the environment. What `sessionapi serve` prepares is prepared here:
    the data folder, the server secret, the signing key and, on the embedded database, the schema. Several
    processes may do so at once. Raise StartupError if the service can't start.
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
