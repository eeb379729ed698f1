"""Waiting for another process or thread, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 60
"""Seconds that a test waits for the database on a busy machine."""
T = TypeVar("T")


def eventually_in_page(condition: str, holds: Callable[[], bool], evaluate: Callable[[str], str]) -> None:
    """Wait until a page's condition holds. A failure has the address and the text of the page."""
    try:
        eventually(holds)
    except AssertionError:
        text = evaluate("`${location.href}\\n${document.body.innerText}`")
        raise AssertionError(f"waited for {condition} at {text}") from None


def eventually(look: Callable[[], T], seconds: float = 30) -> T:
    """Return the result of `look` as soon as it is truthy."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {look}"
        time.sleep(0.01)
    return found
