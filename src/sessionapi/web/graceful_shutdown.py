"""Graceful shutdown: a process becomes unready, stops accepting connections, and finishes its requests.

The delay gives a load balancer time to see that the process is unready and to send new requests elsewhere.
Ctrl-C skips the delay. A worker whose parent process has ended stops too, because nothing else would stop it.
"""

import asyncio
import multiprocessing
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType


class _Stop:
    """The shutdown of this process, which begins when uvicorn's SIGTERM handler is called."""

    def __init__(self, leaving: Event, delay: float) -> None:
        self._leaving = leaving
        self._delay = delay
        self._loop = asyncio.get_running_loop()
        self._begin = signal.getsignal(signal.SIGTERM)

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Begin the shutdown after the delay. A second signal, as from the parent, changes nothing."""
        if self._leaving.is_set():
            return
        self._leaving.set()
        self._loop.call_soon_threadsafe(self._loop.call_later, self._delay, self.now, number, frame)

    def now(self, number: int, frame: FrameType | None = None) -> None:
        """Begin the shutdown immediately."""
        self._leaving.set()
        if callable(self._begin):
            self._begin(number, frame)


@contextmanager
def watched(leaving: Event, delay: float) -> Iterator[None]:
    """Set `leaving` at SIGTERM, and begin the shutdown `delay` seconds later.

    If the parent process ends, do both immediately.
    """
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
