"""The schema: the migrations make what the tables say, and making it twice changes nothing."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.ext.asyncio import AsyncConnection

from sessionapi.errors import StartupError
from sessionapi.settings import Settings
from sessionapi.storage import engines, migrations
from sessionapi.storage.tables import metadata
from tests import postgres
from tests.conftest import FakeClock, rows, running
from tests.postgres import Cluster


@pytest.fixture
def url(engine: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """The address of a database with nothing in it."""
    if engine == "sqlite":
        return f"sqlite:///{tmp_path}/a.db"
    cluster: Cluster = request.getfixturevalue("cluster")
    postgres.execute(cluster.url(), "drop database if exists empty with (force)")
    return cluster.create("empty")


async def beside(url: str) -> AsyncConnection:
    """A connection of somebody else's."""
    return await engines.create(url)[0].connect()


async def test_the_migrations_make_what_the_tables_say(url: str):
    """And nothing else: a column, an index or a constraint of one side only is a difference."""

    def differences(connection: sa.Connection) -> list:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return compare_metadata(context, metadata)

    await migrations.migrate(url)
    connection = await beside(url)
    assert await connection.run_sync(differences) == []
    await connection.close()
    await connection.engine.dispose()


async def test_migrating_twice_is_harmless_and_the_check_says_when_it_is_needed(url: str):
    with pytest.raises(StartupError, match="run: sessionapi migrate"):
        await migrations.check(url)
    for _ in range(2):
        await migrations.migrate(url)
        await migrations.check(url)


async def test_a_database_of_a_newer_version_is_left_alone(url: str):
    await migrations.migrate(url)
    connection = await beside(url)
    await connection.execute(sa.text("update alembic_version set version_num = '9999'"))
    await connection.commit()
    await connection.close()
    await connection.engine.dispose()
    for act in (migrations.migrate, migrations.check):
        with pytest.raises(StartupError, match="newer"):
            await act(url)


@pytest.mark.engines("postgresql")
async def test_of_several_migrations_at_once_one_makes_the_schema_and_all_succeed(url: str):
    """Falls without the advisory lock: the second finds tables that it wanted to make."""
    await asyncio.gather(*(migrations.migrate(url) for _ in range(5)))
    await migrations.check(url)
    assert rows(url, "select count(*) from alembic_version") == [(1,)]


@pytest.mark.engines("postgresql")
async def test_a_migration_waits_for_a_table_only_shortly_and_so_does_nobody_behind_it(url: str):
    """Falls without lock_timeout: the writer at the end would wait for as long as the first one stays."""
    await migrations._run(url, lambda connection: upgrade_to(connection, "0001"))
    holder, writer = await beside(url), await beside(url)
    await holder.execute(sa.text("update users set email = ''"))
    with pytest.raises(StartupError, match="somebody holds a table"):
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
    """Falls without migrations.check in wiring.prepare: each request would fail by itself."""
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
