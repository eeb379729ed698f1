"""A self-hosted session-management service.

`pip install sessionapi` installs only what other programs need to use `sessionapi.verifier`. The service
itself needs `sessionapi[server]`, so `create_app` and `Settings` are imported only when they are used.
"""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from types import ModuleType
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
    app: FastAPI = import_server("sessionapi.web.app").create_app(settings)
    return app


if find_spec("sqlalchemy") is None:
    del create_app  # without the extra, `from sessionapi import create_app` calls __getattr__, which raises


def import_server(module: str) -> ModuleType:
    """Import a module of the service. ModuleNotFoundError, with the pip command, if packages are missing."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.msg}. The service needs more packages than the verifier; "
            "install them with: pip install 'sessionapi[server]'",
            name=error.name,
        ) from error


def __getattr__(name: str) -> Any:
    """Import `Settings` when it is first used (PEP 562), or raise ImportError without the extra."""
    module = {"Settings": "sessionapi.settings", "create_app": "sessionapi.web.app"}.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_server(module), name)


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
