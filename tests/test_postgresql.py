"""Behaviour that only PostgreSQL can show: a second clock, and transactions that commit in another order."""

import os
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack

import pytest
from structlog.testing import capture_logs

from sessionapi.clock import system_clock
from sessionapi.errors import StartupError
from sessionapi.settings import Settings
from sessionapi.storage import Store, database_url, migrations
from tests.support import postgres
from tests.support.api_client import bearer, refusal
from tests.support.app import Running, running
from tests.support.clock import FakeClock
from tests.support.postgres import Cluster

pytestmark = [pytest.mark.server, pytest.mark.engines("postgresql")]
DEBIAN = postgres.debian()
NEEDS_DEBIAN = pytest.mark.skipif(DEBIAN is None, reason="Debian's PostgreSQL is not installed")
IN_TLS = """
    select distinct ssl from pg_stat_ssl join pg_stat_activity using (pid)
    where application_name = 'sessionapi'
"""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(system_clock())


@pytest.fixture
async def two(make_settings: Callable[..., Settings], clock: FakeClock) -> AsyncIterator[list[Running]]:
    """Two apps, as in two processes, which share nothing but the database."""
    settings = make_settings(revocation_poll=10)
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(running(settings, clock)) for _ in range(2)]


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as it:
        yield it


def name() -> str:
    return f"user{os.urandom(6).hex()}"


async def test_a_host_whose_clock_is_off_is_not_ready_and_says_why(two: list[Running], clock: FakeClock):
    """Fails without StateSync._skew."""
    service = two[0]
    assert (await service.client.get("/readyz")).status_code == 200
    for seconds in (10, -10):
        clock.now = system_clock()
        clock.move(seconds)
        with capture_logs() as lines:
            await service.container.state_sync.sync()
        said = f"The clock of this host is {seconds:+}."
        answer = await service.client.get("/readyz")
        assert refusal(answer)[:2] == (503, "unavailable")
        assert said in answer.json()["detail"]
        assert any(said in line["reason"] for line in lines)
    clock.now = system_clock()
    await service.container.state_sync.sync()
    assert (await service.client.get("/readyz")).status_code == 200


async def test_a_host_whose_clock_is_off_still_learns_of_a_dropped_key(two: list[Running], clock: FakeClock):
    """Fails if StateSync replaces the ring only when the clocks agree."""
    one, other = two
    ada = await one.sign_up(name())
    clock.move(10)
    await one.container.keys.drop(one.container.ring.active.kid)
    await other.container.state_sync.sync()
    assert refusal(await other.get("/protected", ada)) == (401, "invalid_token", None)


async def test_a_revocation_that_commits_after_later_ones_is_not_missed(two: list[Running], clock: FakeClock):
    """Fails if a poll requests only the rows that are newer than the newest one that it has."""
    one, other = two
    ada, bob = await one.sign_up(name()), await one.sign_up(name())
    user = await one.container.accounts.find(ada["user"]["username"])
    async with one.container.store.begin() as tx:
        await tx.sessions.revoke(user.id, await tx.sessions.active_ids(user.id, clock()), "logout", clock())
        clock.move(1)
        assert (await other.client.post("/logout", headers=bearer(bob))).status_code == 204
        await other.container.state_sync.sync()
        assert (await other.get("/protected", ada)).status_code == 200
        clock.move(0.5)
    await other.container.state_sync.sync()
    assert refusal(await other.get("/protected", ada)) == (401, "session_revoked", "logout")


async def test_a_session_lives_and_ends_there_as_on_the_embedded_default(
    two: list[Running], clock: FakeClock
):
    one, other = two
    began = await one.sign_up(name())
    clock.move(one.container.settings.rotate_after)
    moved = (await other.refresh(began)).json()
    assert moved["generation"] == 1
    assert (await one.refresh(began)).json()["refresh_token"] == moved["refresh_token"]
    clock.move(11)
    assert refusal(await other.refresh(began))[1] == "refresh_token_reused"
    assert refusal(await one.refresh(moved)) == (401, "session_revoked", "refresh_reuse")


@NEEDS_DEBIAN
async def test_debians_postgresql_does_it_too(make_settings: Callable[..., Settings], clock: FakeClock):
    with postgres.postgresql(DEBIAN, **postgres.UNSAFE) as cluster:
        url = cluster.create("app")
        await migrations.migrate(url)
        await migrations.check(url)
        async with running(make_settings(database_url=url), clock) as service:
            began = await service.sign_up()
            clock.move(600)
            moved = (await service.refresh(began)).json()
            assert moved["generation"] == 1
            assert (await service.client.post("/logout", headers=bearer(moved))).status_code == 204
            assert refusal(await service.refresh(moved)) == (401, "session_revoked", "logout")
            [(version,)] = postgres.fetch(url, "show server_version")
    print(f"PostgreSQL {version}")  # noqa: T201


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "postgresql://u:hidden@h/n?options=-cx",
            "has the option 'options', which is not supported; supported options: ",
        ),
        (
            "postgresql://u@h/n?password=hidden",
            "has the option 'password', which is not supported;",
        ),
        (
            "postgresql://u:hidden@h/n?sslmode=on",
            "has sslmode=on; use one of disable, allow, prefer, require,",
        ),
        (
            "postgresql://u@h/n?target_session_attrs=standby",
            "has target_session_attrs=standby; use one of",
        ),
        ("postgresql://u@h/n?sslrootcert=/no/such", "has sslrootcert=/no/such, but there is no such file"),
        ("postgresql://u:hidden@h:1,h:0/n", "is not a valid URL of the form"),
        ("postgresql://u:hidden@h:one/n", "is not a valid URL of the form"),
        ("postgresql://u:hid@den@h/n", "is not a valid URL of the form"),
        ("postgresql://u:hidden@h/n?sslmode", "is not a valid URL of the form"),
    ],
)
def test_an_address_that_is_not_understood_is_refused_without_its_password(engine: str, url: str, said: str):
    """Fails without database_url.check: an unknown option ended in a traceback."""
    with pytest.raises(StartupError) as refused:
        Store(url)
    assert refused.value.detail.startswith(f"SESSIONAPI_DATABASE_URL {said}")
    assert "hid" not in refused.value.detail


def test_an_address_is_shown_without_its_password_and_options(engine: str):
    url = "postgresql://user:hidden@one:5432,two:5433/name?sslmode=require"
    assert database_url.shown(url) == "postgresql://user:***@one:5432,two:5433/name"
    assert database_url.hosts(url) == [
        "postgresql://user:hidden@one:5432/name?sslmode=require",
        "postgresql://user:hidden@two:5433/name?sslmode=require",
    ]


async def test_of_several_hosts_the_one_that_takes_writes_is_found(
    make_settings: Callable[..., Settings],
    clock: FakeClock,
    cluster: Cluster,
    database_url: str,
    stack: AsyncExitStack,
):
    """Behind a host that doesn't exist, and one that is frozen at first and then read-only.

    Fails without a share of the time for each host, or without target_session_attrs.
    """
    with socket.socket() as unused, postgres.postgresql(**postgres.UNSAFE) as other:
        unused.bind(("127.0.0.1", 0))  # and doesn't listen
        unused_port = unused.getsockname()[1]
        other.create("app")
        postgres.execute(other.url(), "alter system set default_transaction_read_only = on")
        postgres.execute(other.url(), "select pg_reload_conf()")
        hosts = ",".join(f"127.0.0.1:{port}" for port in (unused_port, other.port, cluster.port))
        url = f"postgresql://postgres@{hosts}/app?target_session_attrs=read-write"
        settings = make_settings(database_url=url, database_timeout=6)
        other.freeze()
        try:
            service = await stack.enter_async_context(running(settings, clock))
            await service.sign_up("ada")
        finally:
            other.thaw()
        again = await stack.enter_async_context(running(settings, clock))
        await again.sign_up("bob")
        assert postgres.fetch(database_url, "select username from users order by username") == [
            ("ada",),
            ("bob",),
        ]
        await stack.aclose()


@NEEDS_DEBIAN
async def test_tls_is_used_and_verified_as_the_address_says(
    make_settings: Callable[..., Settings], clock: FakeClock, tmp_path
):
    """verify-full refuses an unknown certificate, and accepts that of the authority."""
    with postgres.postgresql(DEBIAN, **postgres.UNSAFE) as cluster:
        certify(cluster)
        url = cluster.create("app")
        await migrations.migrate(url)
        ca = f"{cluster.folder}/data/server.crt"
        good = f"{url}?sslmode=verify-full&sslrootcert={ca}".replace("127.0.0.1", "localhost")
        async with running(make_settings(database_url=good), clock) as service:
            await service.sign_up()
            assert service.rows(IN_TLS) == [(True,)]
        with pytest.raises(StartupError, match="certificate"):
            await migrations.check(good.replace("localhost", "127.0.0.1"))


def certify(cluster: Cluster) -> None:
    """Give a server a certificate for `localhost`, signed by itself, and make the server load it."""
    make = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    make += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "server.key", "-out", "server.crt"]
    data = cluster.folder / "data"
    subprocess.run(make, cwd=data, check=True, capture_output=True, **postgres.unprivileged())
    (data / "server.key").chmod(0o600)
    postgres.execute(cluster.url(), "alter system set ssl = on")
    postgres.execute(cluster.url(), "select pg_reload_conf()")
