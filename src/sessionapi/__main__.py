"""`python -m sessionapi` is the console script."""

from sessionapi.cli import main

if __name__ == "__main__":
    main()
