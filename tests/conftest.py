"""Fixtures and hooks of all tests. Helpers are in `tests/support/`."""

import asyncio
import logging
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from coverage import Coverage
from playwright.sync_api import Browser

from sessionapi.settings import Settings
from sessionapi.storage import migrations
from tests.support import postgres
from tests.support.app import Running, running
from tests.support.browser import chromium_started
from tests.support.clock import FakeClock
from tests.support.commands import Commands
from tests.support.database import empty
from tests.support.settings import CHEAP_HASH, SERVER_SECRET, environment
from tests.support.waiting import PATIENCE
from tests.support.written import WRITTEN

ENGINES = ("sqlite", "postgresql")
pytest_plugins = ["tests.support.deadlines", "tests.support.tabs"]
MEASURES_PROCESSES = "COVERAGE_PROCESS_CONFIG"
"""The variable that makes coverage measure the Python processes that a test starts."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--engine",
        choices=[*ENGINES, "both"],
        default=os.environ.get("SESSIONAPI_TEST_ENGINE", "both"),
        help="which database the tests of the app run on (also: SESSIONAPI_TEST_ENGINE)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests that use a database on each engine, unless `@pytest.mark.engines` names their engines."""
    if "engine" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("engines")
        wanted = metafunc.config.getoption("engine")
        about = marker.args if marker else ENGINES
        metafunc.parametrize("engine", [each for each in about if wanted in (each, "both")])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Measure coverage only where it may find something new, because it takes as long as the test itself.

    A test that ran on SQLite is not measured again on PostgreSQL. The processes that a test starts are
    measured only if the test is about them and is marked `measured`.
    """
    with unmeasured_processes(item), unmeasured_repetition(item):
        return (yield)


@contextmanager
def unmeasured_processes(item: pytest.Item) -> Iterator[None]:
    told = None if item.get_closest_marker("measured") else os.environ.pop(MEASURES_PROCESSES, None)
    yield
    if told:
        os.environ[MEASURES_PROCESSES] = told


@contextmanager
def unmeasured_repetition(item: pytest.Item) -> Iterator[None]:
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    first = parameters.get("engine") != "postgresql" or item.get_closest_marker("engines")
    measuring = None if first else Coverage.current()
    if measuring:
        measuring.stop()
    yield
    if measuring:
        measuring.start()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Fail a test that wrote a secret anywhere, and clear the records for the next test."""
    report = yield
    if report.when == "teardown":
        for name, text in report.sections:
            WRITTEN.add(name, text)
        leaks = WRITTEN.leaks()
        if leaks and not item.get_closest_marker("writes_secrets"):
            report.outcome, report.longrepr = "failed", "\n".join(leaks)
        WRITTEN.passwords.clear()
        WRITTEN.texts.clear()
    return report


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgres.Cluster]:
    """The PostgreSQL server of this test process."""
    with postgres.postgresql(**postgres.UNSAFE) as it:
        yield it


@pytest.fixture(scope="session")
def schema(cluster: postgres.Cluster) -> str:
    """The URL of a database with the schema."""
    url = cluster.create("app")
    asyncio.run(migrations.migrate(url))
    return url


@pytest.fixture
def database_url(engine: str, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, or an empty text for the SQLite file in the data folder."""
    if engine == "sqlite":
        return ""
    url: str = request.getfixturevalue("schema")
    empty(url)
    return url


@pytest.fixture
def make_settings(tmp_path: Path, database_url: str) -> Callable[..., Settings]:
    """Settings for a database of this test, whatever the environment contains."""

    def make(**changes: Any) -> Settings:
        values = {
            "data_dir": tmp_path / "var",
            "database_url": database_url,
            "database_timeout": PATIENCE,
            "secret": SERVER_SECRET,
            "throttle": False,
            "cookie_secure": "on",
            **CHEAP_HASH,
            **changes,
        }
        return Settings(_env_file=None, **values)

    return make


@pytest.fixture
async def service(make_settings: Callable[..., Settings], clock: FakeClock) -> AsyncIterator[Running]:
    """The app with its default settings and cheap hashes."""
    async with running(make_settings(), clock) as it:
        yield it


@pytest.fixture
def browser() -> Iterator[Browser]:
    """A Chromium that ends with the test, for tests marked NEEDS_CHROMIUM."""
    with chromium_started() as started:
        yield started


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A Chromium for all tests of a module, none of which is async. Each test opens separate contexts."""
    with chromium_started() as started:
        yield started


@pytest.fixture
def commands(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Commands]:
    data = tmp_path / "var"
    own = environment(data, secret=SERVER_SECRET, database_url=database_url)
    for name in set(os.environ) - set(own):
        monkeypatch.delenv(name)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)  # a folder without .env
    for owner, name in ((sys, "excepthook"), (sys, "unraisablehook"), (threading, "excepthook")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # commands replace them
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield Commands(data)
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
