"""A pytest plugin that ends the process of a test that takes twice its timeout.

pytest-timeout raises one exception in the main thread. It is lost if Playwright runs a callback at that time,
and it does not limit the teardown that follows. Such a test once stopped a run for an hour.
"""

import faulthandler
import os
from collections.abc import Iterator
from threading import Timer

import pytest

STDERR = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[STDERR] = os.dup(2)  # pytest replaces the standard error output while a test runs


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    marker = item.get_closest_marker("timeout")
    timeout = float(marker.args[0] if marker else item.config.getini("timeout"))
    timer = Timer(2 * timeout, end_process, [item.nodeid, item.config.stash[STDERR]])
    timer.daemon = True
    if not item.config.getoption("usepdb"):
        timer.start()
    try:
        return (yield)
    finally:
        timer.cancel()


def end_process(test: str, stderr: int) -> None:
    """Write what each thread does, and exit without any teardown. pytest-xdist starts another worker."""
    os.write(stderr, f"\n{test} took twice its timeout\n".encode())
    faulthandler.dump_traceback(file=stderr)
    os._exit(1)
