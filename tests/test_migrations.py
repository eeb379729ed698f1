"""The schema: the migrations make what the tables say, and making it twice changes nothing."""

import sqlite3

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from sessionapi.errors import StartupError
from sessionapi.storage import migrations
from sessionapi.storage.tables import metadata


async def test_the_migrations_make_what_the_tables_say(tmp_path):
    await migrations.migrate(f"sqlite:///{tmp_path}/a.db")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/a.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


async def test_migrating_twice_is_harmless_and_the_check_says_when_it_is_needed(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    with pytest.raises(StartupError, match="run: sessionapi migrate"):
        await migrations.check(url)
    for _ in range(2):
        await migrations.migrate(url)
        await migrations.check(url)


async def test_a_database_of_a_newer_version_is_left_alone(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    await migrations.migrate(url)
    with sqlite3.connect(tmp_path / "a.db") as database:
        database.execute("update alembic_version set version_num = '9999'")
    for act in (migrations.migrate, migrations.check):
        with pytest.raises(StartupError, match="newer"):
            await act(url)
