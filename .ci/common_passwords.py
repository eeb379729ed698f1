#!/usr/bin/env python3
"""Make the list of common passwords from that of the package zxcvbn.

Usage: .ci/common_passwords.py ZXCVBN > src/sessionapi/users/common_passwords.txt

ZXCVBN is the directory of the unpacked package (`pip download --no-deps zxcvbn==4.5.0`). Its list has the
30,000 most common passwords of leaks, the most common first. Those that our minimum length refuses anyway are
left out. The package has the MIT License, which is in `src/sessionapi/users/common_passwords.license.txt`.
"""

import sys
from pathlib import Path

MIN_LENGTH = 8


def main() -> None:
    """Print the passwords, one per line."""
    text = Path(sys.argv[1], "frequency_lists.py").read_text("utf-8")
    listed = text.partition('"passwords": "')[2].partition('"')[0].split(",")
    print(*(password for password in listed if len(password) >= MIN_LENGTH), sep="\n")


if __name__ == "__main__":
    main()
