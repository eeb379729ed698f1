"""Session management that a team hosts itself."""

from importlib.metadata import version

__version__ = version("sessionapi")
