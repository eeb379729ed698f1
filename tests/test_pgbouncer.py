"""Behind a PgBouncer that pools transactions, each transaction may use another server process."""

import asyncio
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from sessionapi.errors import StartupError
from sessionapi.settings import Settings
from tests.support import postgres
from tests.support.api_client import bearer, refusal
from tests.support.app import running
from tests.support.clock import FakeClock
from tests.support.ports import free_port
from tests.support.postgres import Cluster

PGBOUNCER = shutil.which("pgbouncer", path="/usr/sbin:/usr/bin:/usr/local/bin")
SIZE = 3
"""Connections of PgBouncer to the server: fewer than those to PgBouncer, so that clients share them."""
READS = 80
"""Enough reads at once that the two halves of a statement would sometimes use different connections."""
pytestmark = [
    pytest.mark.server,
    pytest.mark.engines("postgresql"),
    pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed"),
]


@contextmanager
def pgbouncer(cluster: Cluster) -> Iterator[str]:
    """Run PgBouncer in front of a server until the block ends; yields the URL of the database there."""
    assert PGBOUNCER is not None
    port = free_port()
    folder = cluster.folder / f"pgbouncer-{port}"
    folder.mkdir(mode=0o755)
    (folder / "pgbouncer.ini").write_text(
        f"""
[databases]
app = host=127.0.0.1 port={cluster.port} dbname=app user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {SIZE}
min_pool_size = {SIZE}
"""
    )
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [PGBOUNCER, folder / "pgbouncer.ini"], stdout=log, stderr=log, **postgres.unprivileged()
    )
    try:
        deadline = time.monotonic() + 30
        while "process up" not in (folder / "log").read_text():
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"postgresql://postgres@127.0.0.1:{port}/app"
    finally:
        process.terminate()  # after an interrupt it would wait for its clients
        process.wait(30)
        log.close()


async def test_everything_works_there_and_no_statement_stays_behind(
    make_settings: Callable[..., Settings], clock: FakeClock, cluster: Cluster, database_url: str
):
    """Fails unless both caches are off, or if statements have names.

    Each of the server's processes lists the statements prepared in it, for any transaction that it serves.
    """
    with pgbouncer(cluster) as url:
        settings = make_settings(database_url=url, pgbouncer=True)
        async with running(settings, clock) as one, running(settings, clock) as two:
            tokens = [await one.sign_up(f"user{number}") for number in range(8)]
            for turn in range(3):
                clock.move(600)
                both = (one, two) if turn % 2 else (two, one)
                answers = await asyncio.gather(
                    *(both[number % 2].refresh(each) for number, each in enumerate(tokens))
                )
                assert {answer.status_code for answer in answers} == {200}
                tokens = [answer.json() for answer in answers]
                reads = await asyncio.gather(
                    *(both[number % 2].get("/me", tokens[number % 8]) for number in range(READS))
                )
                assert {answer.status_code for answer in reads} == {200}
            assert (await two.client.post("/logout", headers=bearer(tokens[0]))).status_code == 204
            await one.container.state_sync.sync()
            assert refusal(await one.get("/protected", tokens[0])) == (401, "session_revoked", "logout")
            left = await asyncio.gather(*(statements_of_a_backend(one) for _ in range(30)))
        assert len({pid for pid, _ in left}) > 1
        assert {names for _, names in left} == {()}


async def statements_of_a_backend(service) -> tuple[int, tuple[str, ...]]:
    """Return a server process and the named statements that are prepared in it."""
    async with service.container.store.begin() as tx:
        pid = (await tx.connection.exec_driver_sql("select pg_backend_pid()")).scalar_one()
        names = (await tx.connection.exec_driver_sql("select name from pg_prepared_statements")).scalars()
        return pid, tuple(name for name in names if name)


async def test_without_the_setting_the_server_does_not_start_and_says_which_it_is(
    make_settings: Callable[..., Settings], clock: FakeClock, cluster: Cluster, database_url: str
):
    with pgbouncer(cluster) as url, pytest.raises(StartupError, match="set SESSIONAPI_PGBOUNCER=on"):
        async with running(make_settings(database_url=url), clock):
            pass
