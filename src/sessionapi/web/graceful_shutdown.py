"""How a server process stops: it says that it isn't ready, then takes no more, then ends what is under way.

The time between is for a balancer to look and to send new requests elsewhere. Whoever presses Ctrl-C doesn't
wait for it. A worker whose parent has died stops too, for nobody else would end it.
"""

import asyncio
import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType


class _Stop:
    """The end of this process; uvicorn's own handler of SIGTERM begins it."""

    def __init__(self, leaving: Event, delay: float) -> None:
        self._leaving = leaving
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._begin = signal.getsignal(signal.SIGTERM)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Begin the end after the delay; a second signal changes nothing (the parent may send one too)."""
        if self._leaving.is_set():
            return
        self._leaving.set()
        self._loop.call_soon_threadsafe(self._loop.call_later, self._delay, self.now, number, frame)

    def now(self, number: int, frame: FrameType | None = None) -> None:
        """Begin the end."""
        self._leaving.set()
        if callable(self._begin):
            self._begin(number, frame)


@contextmanager
def watched(leaving: Event, delay: float) -> Iterator[None]:
    """Set `leaving` at the first sign that this process has to end, and let it end `delay` seconds later."""
    stop = _Stop(leaving, delay)
    signal.signal(signal.SIGTERM, stop.on_signal)
    loop, parent = asyncio.get_running_loop(), multiprocessing.parent_process()
    if parent is None:
        yield
        return

    def orphaned() -> None:
        loop.remove_reader(parent.sentinel)
        stop.now(signal.SIGTERM)

    loop.add_reader(parent.sentinel, orphaned)
    try:
        yield
    finally:
        loop.remove_reader(parent.sentinel)
