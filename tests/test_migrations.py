"""The schema: the migrations create exactly the tables of the code, and a second run changes nothing."""

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncConnection

import sessionapi
from sessionapi.errors import StartupError
from sessionapi.settings import Settings
from sessionapi.storage import engines, migrations
from sessionapi.storage.tables import metadata
from tests.support import postgres
from tests.support.api_client import PASSWORD, bearer, crowded, refusal
from tests.support.app import running
from tests.support.clock import FakeClock
from tests.support.database import rows
from tests.support.postgres import Cluster
from tests.support.server import serving
from tests.support.settings import SERVER_SECRET, environment


@pytest.fixture
def url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    if engine == "sqlite":
        return f"sqlite:///{tmp_path}/a.db"
    cluster: Cluster = request.getfixturevalue("cluster")
    postgres.execute(cluster.url(), "drop database if exists empty with (force)")
    return cluster.create("empty")


async def beside(url: str) -> AsyncConnection:
    """Return a connection of another client."""
    return await engines.create(url)[0].connect()


async def test_the_migrations_make_what_the_tables_say(url: str):
    """Any column, index or constraint on one side only is a difference."""

    def differences(connection: sa.Connection) -> list:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, metadata)

    await migrations.migrate(url)
    connection = await beside(url)
    assert await connection.run_sync(differences) == []
    if connection.dialect.name == "postgresql":  # the comparison leaves it out
        room = sa.text("select reloptions from pg_class where relname = 'sessions'")
        options = metadata.tables["sessions"].dialect_options["postgresql"]["with"]
        assert (await connection.execute(room)).scalar() == [f"{name}={it}" for name, it in options.items()]
    await connection.close()
    await connection.engine.dispose()


async def test_migrating_twice_is_harmless_and_the_check_says_when_it_is_needed(url: str):
    with pytest.raises(StartupError, match="run: sessionapi migrate"):
        await migrations.check(url)
    for _ in range(2):
        await migrations.migrate(url)
        await migrations.check(url)


async def ahead(url: str, *statements: str) -> None:
    """Turn the schema into one of a future version."""
    await migrations.migrate(url)
    connection = await beside(url)
    for statement in (*statements, "update alembic_version set version_num = '9000'"):
        await connection.execute(sa.text(statement))
    await connection.commit()
    await connection.close()
    await connection.engine.dispose()


async def test_a_newer_schema_that_only_adds_will_do_and_stays_as_it_is(url: str):
    """Fails if a newer schema is refused: the previous version could not start in a rolling upgrade."""
    await ahead(
        url,
        "alter table sessions add column trust integer",
        "alter table users add column locale varchar(9) not null default 'en'",
        "create table teams (id integer not null)",
    )
    assert await migrations.migrate(url) == await migrations.check(url) == "9000"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("alter table sessions drop column device_name", "sessions.device_name is missing"),
        ("drop table password_tries", "password_tries.bucket is missing, password_tries.ends_at is missing"),
    ],
    ids=["column", "table"],
)
async def test_a_newer_schema_that_lacks_something_is_refused_and_left_alone(
    url: str, statement: str, said: str
):
    await ahead(url, statement)
    for act in (migrations.migrate, migrations.check):
        with pytest.raises(StartupError, match=f"schema 9000, of a newer sessionapi .*: {said}"):
            await act(url)


@pytest.mark.engines("postgresql")
async def test_a_newer_schema_with_a_column_that_this_version_can_not_fill_is_refused(url: str):
    await ahead(url, "alter table users add column tenant integer not null")
    with pytest.raises(StartupError, match=r"users\.tenant is required"):
        await migrations.check(url)


@pytest.mark.engines("postgresql")
async def test_of_several_migrations_at_once_one_makes_the_schema_and_all_succeed(url: str):
    """Fails without the advisory lock: the second migration finds tables that it wanted to create."""
    await asyncio.gather(*(migrations.migrate(url) for _ in range(5)))
    await migrations.check(url)
    assert rows(url, "select count(*) from alembic_version") == [(1,)]


@pytest.mark.engines("postgresql")
async def test_a_migration_waits_for_a_table_only_shortly_and_so_does_nobody_behind_it(url: str):
    """Fails without lock_timeout: the writer at the end would wait as long as the first one stays open."""
    await migrations._run(url, lambda connection: upgrade_to(connection, "0001"))
    holder, writer = await beside(url), await beside(url)
    await holder.execute(sa.text("update users set email = ''"))
    with pytest.raises(StartupError, match="another transaction holds a table"):
        await migrations.migrate(url, lock_seconds=0.2, tries=3)
    upgrade = asyncio.create_task(migrations.migrate(url, lock_seconds=0.2))
    for _ in range(10):
        await writer.execute(sa.text("update users set email = ''"))
        await writer.rollback()
    await holder.rollback()
    await upgrade
    await migrations.check(url)
    for each in (holder, writer):
        await each.close()
        await each.engine.dispose()


@pytest.mark.engines("postgresql")
async def test_a_server_refuses_an_old_schema_and_one_that_runs_is_not_disturbed_by_a_migration(
    url: str, make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without migrations.check in container.bootstrap: each request would fail separately."""
    settings = make_settings(database_url=url)
    await migrations._run(url, lambda connection: upgrade_to(connection, "0003"))
    with pytest.raises(StartupError, match="run: sessionapi migrate"):
        async with running(settings, clock):
            pass
    await migrations.migrate(url)
    async with running(settings, clock) as service:
        tokens = await service.sign_up()
        migration = asyncio.create_task(migrations.migrate(url))
        while not migration.done():
            assert (await service.refresh(tokens)).status_code == 200
        await migration


def upgrade_to(connection: sa.Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrations.folder()))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


FUTURE = """
import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{newest}"


def upgrade() -> None:
    op.add_column("sessions", sa.Column("trust", sa.Integer))
    op.add_column("users", sa.Column("locale", sa.String(9), nullable=False, server_default="en"))
    op.create_table("teams", sa.Column("id", sa.Uuid, primary_key=True), sa.Column("name", sa.Text))
    op.create_index("ix_sessions_auth_time", "sessions", ["auth_time"])
"""


@contextmanager
def next_version(folder: Path) -> Iterator[None]:
    """Let processes started within the block be of a future version: our package with one more migration."""
    package = folder / "sessionapi"
    shutil.copytree(Path(sessionapi.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(migrations.folder(), package / "migrations", dirs_exist_ok=True)
    future = FUTURE.format(newest=migrations.revisions()[-1])
    (package / "migrations/versions/9000_future.py").write_text(future)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder))
        patch.delenv("COVERAGE_PROCESS_CONFIG", raising=False)  # the file isn't ours
        yield


async def carried_out(data: Path, *arguments: str, **settings: str) -> str:
    """Run the command line and return its output."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sessionapi",
        *arguments,
        env=environment(data, **settings),
        cwd=data.parent,
        stdout=subprocess.PIPE,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()


@dataclass
class Load:
    """Users who log in, call, refresh and log out at all servers in turn, and are never refused."""

    client: httpx.AsyncClient
    urls: list[str]
    rounds: int = 0

    async def post(self, path: str, **body: str) -> dict:
        self.urls.append(self.urls.pop(0))
        answer = await self.client.post(f"{self.urls[0]}{path}", json=body)
        assert answer.is_success, (self.urls[0], path, answer.text)
        return answer.json() if answer.content else {}

    async def user(self, name: str) -> None:
        """Use the servers until cancelled."""
        await self.post("/signup", username=name, password=PASSWORD)
        while True:
            tokens = await self.post("/login", username=name, password=PASSWORD)
            assert (await self.client.get(f"{self.urls[0]}/me", headers=bearer(tokens))).is_success
            tokens = await self.post("/refresh", refresh_token=tokens["refresh_token"])
            await self.post("/logout", refresh_token=tokens["refresh_token"])
            self.rounds += 1

    async def goes_on(self, users: list[asyncio.Task]) -> None:
        """Wait until a good number of rounds more are done; raises the errors that any user met."""
        enough = self.rounds + 3 * len(users)
        while self.rounds < enough:
            done, _ = await asyncio.wait(users, timeout=0.05)
            for user in done:
                user.result()


@pytest.mark.server
@pytest.mark.engines("postgresql")
async def test_in_a_rolling_upgrade_servers_of_two_versions_go_on_and_start_on_the_newer_schema(
    url: str, tmp_path: Path
):
    """Fails if `_usable_version` requires its own version: the second of the older servers doesn't start."""
    own = {"database_url": url, "secret": SERVER_SECRET, "refresh_grace": 1, "rotate_after": 3}
    own["database_timeout"] = 10  # so that a busy machine refuses no user
    await migrations.migrate(url)
    with ExitStack() as servers:
        older = servers.enter_context(serving(tmp_path / "older", **own))
        async with crowded(20) as client:
            load = Load(client, [older.url])
            users = [asyncio.create_task(load.user(f"user{number}")) for number in range(3)]
            elder = await load.post("/signup", username="elder", password=PASSWORD)
            await load.goes_on(users)
            with next_version(tmp_path / "next"):
                assert "up to date" in await carried_out(tmp_path / "cli", "migrate", **own)
                assert rows(url, "select version_num from alembic_version") == [("9000",)]
                await load.goes_on(users)
                newer = await asyncio.to_thread(servers.enter_context, serving(tmp_path / "newer", **own))
            assert "9000, from a newer" in await carried_out(tmp_path / "cli", "migrate", "--check", **own)
            again = await asyncio.to_thread(servers.enter_context, serving(tmp_path / "again", **own))
            load.urls += [newer.url, again.url]
            await load.goes_on(users)
            for user in users:
                user.cancel()
            for generation in (1, 2, 3):
                postgres.execute(url, "update sessions set rotated_at = rotated_at - 3600000000")
                elder = await load.post("/refresh", refresh_token=elder["refresh_token"])
                assert elder["generation"] == generation
            await load.post("/logout", refresh_token=elder["refresh_token"])
        for server in (older, newer, again):
            assert refusal(server.refresh(elder)) == (401, "session_revoked", "logout")
