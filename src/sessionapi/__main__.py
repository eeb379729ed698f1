"""Run the command line with `python -m sessionapi`."""

from sessionapi.cli import main

if __name__ == "__main__":
    main()
