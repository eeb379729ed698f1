"""Waiting for another process or thread, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 60
"""Seconds that a test waits for the database on a busy machine."""
T = TypeVar("T")


def eventually(look: Callable[[], T], seconds: float = 30) -> T:
    """Return the result of `look` as soon as it is truthy."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {look}"
        time.sleep(0.01)
    return found
