"""Run the command line: `sessionapi`, or `python -m sessionapi`."""

import sys

from sessionapi import import_server


def main() -> None:
    """Run the command line. If a package is missing, print its name and the pip command, and exit with 1."""
    try:
        cli = import_server("sessionapi.cli")
    except ModuleNotFoundError as error:
        sys.exit(str(error))
    cli.app()


if __name__ == "__main__":
    main()
