"""Shared fixtures and helpers: the real app on a real store with a fake clock, and server processes."""

import asyncio
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import httpx
import pytest
import structlog
from click.testing import Result
from coverage import Coverage
from playwright.sync_api import Browser, sync_playwright
from typer.testing import CliRunner

from sessionapi import cli, container
from sessionapi.settings import Settings
from sessionapi.storage import migrations
from sessionapi.storage.database_url import sqlite_path
from sessionapi.storage.tables import metadata
from sessionapi.web import app as web
from tests import postgres
from tests.browser import ARGUMENTS, CHROMIUM
from tests.written import WRITTEN

SERVER_SECRET = "a server secret of the tests, with more than 32 bytes"
CHEAP_HASH = {"hash_memory_kib": 8, "hash_time": 1}
PATIENCE = 60
"""Seconds that a test waits for the database on a busy machine."""
PASSWORD = "correct horse battery"
UNHURRIED = {"database_timeout": PATIENCE, "stop_delay": 0}
ENGINES = ("sqlite", "postgresql")
pytest_plugins = ["tests.tabs"]
MEASURES_PROCESSES = "COVERAGE_PROCESS_CONFIG"
"""The variable that makes coverage measure the Python processes that a test starts."""
T = TypeVar("T")


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


@dataclass
class FakeClock:
    """Time that moves only when a test moves it."""

    now: datetime = field(default_factory=lambda: datetime(2026, 11, 24, 9, 0, tzinfo=UTC))

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


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


@cache
def migrated_file() -> bytes:
    """An SQLite file with the schema, because the migrations would take as long as many a test."""
    with TemporaryDirectory() as folder, ThreadPoolExecutor(1) as beside:
        beside.submit(asyncio.run, migrations.migrate(f"sqlite:///{folder}/a.db")).result()
        return Path(folder, "a.db").read_bytes()


def empty(url: str) -> None:
    """Delete all rows, which takes a millisecond; a new database would take fifty."""
    tables = reversed(metadata.sorted_tables)
    postgres.execute(url, ";".join(f"delete from {table.name}" for table in tables))


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


@dataclass
class Running:
    """An app in this process, with a client that talks to it over ASGI."""

    parts: container.Container
    client: httpx.AsyncClient
    clock: FakeClock

    async def sign_up(self, username: str = "ada", password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        answer = await self.client.post("/signup", json={"username": username, "password": password, **more})
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def log_in(self, username: str = "ada", password: str = PASSWORD, **more: Any) -> dict[str, Any]:
        answer = await self.client.post("/login", json={"username": username, "password": password, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def get(self, path: str, tokens: dict[str, Any]) -> httpx.Response:
        return await self.client.get(path, headers=bearer(tokens))

    async def send(
        self, method: str, path: str, tokens: dict[str, Any], body: Any = None, **headers: str
    ) -> httpx.Response:
        return await self.client.request(method, path, headers={**bearer(tokens), **headers}, json=body)

    async def refresh(
        self, tokens: dict[str, Any] | str, key: str | None = None, **body: Any
    ) -> httpx.Response:
        """Refresh with a token in the body; `key` is the Idempotency-Key."""
        text = tokens if isinstance(tokens, str) else tokens["refresh_token"]
        headers = {"Idempotency-Key": key} if key else {}
        return await self.client.post("/refresh", json={"refresh_token": text, **body}, headers=headers)

    def rows(self, query: str) -> list[tuple]:
        """Return the rows of a query that the test runs itself, independently of the app."""
        return rows(self.parts.settings.effective_database_url, query)


def rows(url: str, query: str) -> list[tuple]:
    """Return the rows of a database. Ids and JSON have SQLite's form on both engines."""
    if url.startswith("postgresql:"):
        return postgres.fetch(url, query)
    with closing(sqlite3.connect(sqlite_path(url))) as database:
        return database.execute(query).fetchall()


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    """The status, code and reason of a problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert answer.status_code == body["status"]
    return body["status"], body["code"], body.get("reason")


def bearer(tokens: dict[str, Any] | str) -> dict[str, str]:
    text = tokens if isinstance(tokens, str) else tokens["access_token"]
    return {"Authorization": f"Bearer {text}"}


@asynccontextmanager
async def running(settings: Settings, clock: FakeClock) -> AsyncIterator[Running]:
    """Start the whole app as a server would, without a socket."""
    if settings.embedded and not settings.data_dir.exists():
        settings.data_dir.mkdir(parents=True)
        (settings.data_dir / "sessionapi.db").write_bytes(migrated_file())
    await container.bootstrap(settings, clock)
    parts = container.build(settings, clock)
    app = web.create(parts)
    transport = httpx.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=transport,
            base_url="http://localhost:8000",
            event_hooks={"response": [WRITTEN.saw]},
        ) as client,
    ):
        yield Running(parts, client, clock)
        WRITTEN.add("the metrics", parts.metrics.render().decode())
    WRITTEN.add("the audit table", str(rows(settings.effective_database_url, "select * from events")))


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


@contextmanager
def chromium_started(*arguments: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=[*ARGUMENTS, *arguments])
        yield started
        started.close()


def eventually(look: Callable[[], T], seconds: float = 30) -> T:
    """Return the result of `look` as soon as it is truthy."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {look.__name__}"
        time.sleep(0.01)
    return found


@dataclass
class Server:
    """A real server process on the folder `data`, at `url`. `log` is everything that it wrote to stderr."""

    process: subprocess.Popen[str]
    data: Path
    url: str
    lines: list[str]
    log: Path

    def post(self, path: str, **body: Any) -> httpx.Response:
        """Send a JSON body."""
        return self._post(path, json=body)

    def sign_up(self, username: str = "ada", **more: Any) -> dict[str, Any]:
        """Create an account over HTTP, on a new device; return its tokens."""
        answer = self.post("/signup", username=username, password=PASSWORD, **more)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def log_in(self, username: str = "ada", **more: Any) -> dict[str, Any]:
        answer = self.post("/login", username=username, password=PASSWORD, **more)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def refresh(self, tokens: dict[str, Any], key: str | None = None) -> httpx.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return self._post("/refresh", json={"refresh_token": tokens["refresh_token"]}, headers=headers)

    def _post(self, path: str, **more: Any) -> httpx.Response:
        # Hashes have a low priority, so they can wait long on a busy machine. Reading no certificates saves
        # 20 ms.
        return httpx.post(f"{self.url}{path}", verify=False, timeout=PATIENCE, **more)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@asynccontextmanager
async def crowded(
    connections: int, *, kept: int | None = None, base_url: str = "", timeout: float = PATIENCE
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client for many requests at once. It keeps all its connections, or the given number."""
    kept = connections if kept is None else kept
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=kept)
    async with httpx.AsyncClient(base_url=base_url, timeout=timeout, limits=limits) as client:
        yield client


async def sign_up_at(client: httpx.AsyncClient, username: str, url: str = "") -> dict[str, Any]:
    """Create an account over HTTP while the client has other requests under way; return its tokens."""
    answer = await client.post(f"{url}/signup", json={"username": username, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return answer.json()


def environment(data_dir: Path | str, **settings: Any) -> dict[str, str]:
    """Return the environment of a server on a data folder; `settings` are named as in `Settings`."""
    own = {
        "data_dir": data_dir,
        "hash_memory_kib": 8,
        "hash_time": 1,
        "throttle": "off",
        "cookie_secure": "on",  # as in production; Chromium keeps such cookies even on loopback names
        **UNHURRIED,
        **settings,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SESSIONAPI_")}
    return {**kept, **{f"SESSIONAPI_{name.upper()}": str(value) for name, value in own.items()}}


@contextmanager
def serving(
    data_dir: Path, *arguments: str, prefix: tuple[str, ...] = (), **settings: Any
) -> Iterator[Server]:
    """Run `sessionapi serve --port 0` as a separate process until the block ends.

    `prefix` is put before the command (strace). The process leads a group, so that its workers end with it.
    """
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    log = data_dir.parent / f"{data_dir.name}.log"
    command = [*prefix, sys.executable, "-m", "sessionapi", "serve", "--port", "0", *arguments]
    with log.open("a") as stderr:
        process = subprocess.Popen(
            command,
            env=environment(data_dir, **settings),
            cwd=data_dir.parent,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )
    assert process.stdout is not None
    lines = [process.stdout.readline().rstrip() for _ in range(3)]
    found = re.search(r"http://\S+", lines[0])
    assert found, f"no address in {lines}: {log.read_text()}"
    server = Server(process, data_dir, found.group(), lines, log)
    try:
        yield server
    finally:
        if process.poll() is None:
            server.stop()
        process.stdout.close()
        WRITTEN.add("the log of a server", log.read_text())


@dataclass
class Commands:
    """The command line in this process, on the data folder that `make_settings` also uses."""

    data: Path

    def __call__(self, *arguments: str, given: str | bytes = "") -> Result:
        return CliRunner().invoke(cli.app, list(arguments), input=given)

    async def beside(self, *arguments: str, given: str | bytes = "") -> Result:
        """Run a command while the app of the test goes on."""
        return await asyncio.to_thread(self, *arguments, given=given)

    def refused(self, *arguments: str, given: str | bytes = "") -> str:
        """Run a command that must be refused, and return the line with the reason."""
        done = self(*arguments, given=given)
        assert (done.exit_code, done.stdout) == (1, ""), done.output
        *before, said = done.stderr.splitlines()
        assert said.startswith("sessionapi: "), done.stderr
        assert all(line.startswith("Created a new database at ") for line in before), done.stderr
        return said.removeprefix("sessionapi: ").strip()


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
