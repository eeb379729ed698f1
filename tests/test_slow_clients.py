"""Clients that are slow, silent or many: each wait has a deadline, and no client takes every connection."""

import contextlib
import json
import resource
import sqlite3
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.api_client import PASSWORD
from tests.support.raw import Connection, chunked, request
from tests.support.server import Server, serving
from tests.support.waiting import eventually

pytestmark = [pytest.mark.server, pytest.mark.measured]
QUICK = {"head_timeout": 1, "body_timeout": 1, "keep_alive_timeout": 1}
LOGIN = json.dumps({"username": "ada", "password": PASSWORD}).encode()
OK = request("GET", "/protected")


@pytest.mark.requirement("CWE-400")
def test_a_slow_request_is_refused_and_a_silent_connection_closed(tmp_path: Path):
    """Fails without `time_out`: the server waited for each of them without end."""
    head, end, body = request("POST", "/login", LOGIN).partition(b"\r\n\r\n")
    late = {
        "half a head": head,
        "a byte": b"G",
        "no body": head + end,
        "half a body": head + end + body[:5],
        "half a chunk": chunked("POST", "/login", LOGIN)[:-20],
        "a body after an upgrade": head + b"\r\nConnection: upgrade\r\nUpgrade: h2c" + end + body[:5],
    }
    with serving(tmp_path / "var", **QUICK) as server, contextlib.ExitStack() as open_ones:
        slow = [
            (name, before, open_ones.enter_context(Connection(server.url)).send(before + sent))
            for name, sent in late.items()
            for before in (b"", OK)
        ]
        for name, before, connection in slow:
            *answered, refused = connection.read_all()
            assert [response.status for response in answered] == ([401] if before else []), name
            assert (refused.status, refused.json()["code"]) == (408, "request_timed_out"), name
            assert refused.headers["connection"] == "close"
        with Connection(server.url) as silent, Connection(server.url) as idle:
            assert idle.send(OK).read().status == 401
            assert silent.is_closed()
            assert idle.is_closed()
        with Connection(server.url) as connection:  # the response came before the body
            unread = request("GET", "/protected", LOGIN)
            assert connection.send(unread[:-5]).read().status == 401
            assert connection.is_closed()


@pytest.mark.requirement("CWE-400")
def test_a_body_that_drips_is_refused(tmp_path: Path):
    """Fails if each byte restarts the deadline."""
    with serving(tmp_path / "var", **QUICK) as server, Connection(server.url) as connection:
        connection.send(request("POST", "/login", b" " * 1000)[:-1000])
        connection.socket.settimeout(0.2)
        began = time.monotonic()
        while time.monotonic() - began < 60:
            with contextlib.suppress(TimeoutError):
                assert connection.read().status == 408
                return
            connection.send(b" ")
        pytest.fail("a body dripped for a minute")


@pytest.mark.requirement("CWE-400")
def test_a_client_that_works_is_never_timed_out(tmp_path: Path):
    """Fails if a deadline belongs to the connection and not to the request: this takes three of them."""
    with serving(tmp_path / "var", **QUICK) as server, Connection(server.url) as connection:
        began = time.monotonic()
        while time.monotonic() - began < 3:
            assert connection.send(OK[:9], OK[9:]).read().status == 401


@pytest.mark.requirement("CWE-400")
def test_balancers_keep_their_connections_for_a_minute(tmp_path: Path):
    """Fails with uvicorn's 5 seconds: a balancer would send a request into a connection that closes."""
    with serving(tmp_path / "var") as server, Connection(server.url) as connection:
        assert connection.send(OK).read().status == 401
        connection.socket.settimeout(6)
        with pytest.raises(TimeoutError):
            connection.is_closed()
        assert connection.send(OK).read().status == 401


@pytest.mark.requirement("CWE-400")
def test_a_trusted_proxy_may_open_a_connection_before_it_needs_it(tmp_path: Path):
    """Fails if the first head has a deadline from the start, or if the address of a proxy is limited."""
    own = {"head_timeout": 1, "trusted_proxies": "127.0.0.1", "connections_per_address": 1}
    with serving(tmp_path / "var", **own) as server, contextlib.ExitStack() as open_ones:
        proxy = [open_ones.enter_context(Connection(server.url)) for _ in range(20)]
        stranger = open_ones.enter_context(Connection(server.url, source="127.0.0.2"))
        assert stranger.is_closed()  # so the deadline has passed
        for connection in proxy:
            assert connection.send(OK).read().status == 401


@pytest.mark.parametrize("limit", ["connections", "connections_per_address"])
@pytest.mark.requirement("CWE-400")
def test_slow_connections_give_way_to_new_ones(tmp_path: Path, limit: str):
    """Fails without `_has_room`: a client that takes every connection shuts the others out."""
    head = request("POST", "/login", LOGIN)[:-5]
    with serving(tmp_path / "var", **{limit: 20}) as server, contextlib.ExitStack() as open_ones:
        server.sign_up()
        for begun in (b"", OK[:9], head, OK):
            for _ in range(30):
                open_ones.enter_context(Connection(server.url)).send(begun)
            assert server.log_in()["user"]["username"] == "ada"
        assert len(list(Path(f"/proc/{server.process.pid}/fd").iterdir())) < 80


def is_read(server: Server, connections: list[Connection]) -> bool:
    """Return whether the server has read everything that was sent on these connections."""
    ports = {connection.socket.getsockname()[1] for connection in connections}
    port = int(server.url.rpartition(":")[2])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    theirs = [
        row[4]
        for row in rows
        if int(row[1].partition(":")[2], 16) == port and int(row[2].partition(":")[2], 16) in ports
    ]
    return len(theirs) == len(ports) and all(queues.endswith(":00000000") for queues in theirs)


@pytest.mark.requirement("CWE-400")
def test_requests_that_are_being_answered_keep_their_places(tmp_path: Path):
    """Fails if a request gives way: the new connection is refused instead, with a Retry-After."""
    with serving(tmp_path / "var", connections_per_address=3) as server, contextlib.ExitStack() as open_ones:
        database = sqlite3.connect(server.data / "sessionapi.db", isolation_level=None)
        open_ones.callback(database.close)
        database.execute("begin immediate")  # so that sign-ups wait
        waiting = [open_ones.enter_context(Connection(server.url)) for _ in range(3)]
        for number, connection in enumerate(waiting):
            body = json.dumps({"username": f"user{number}", "password": PASSWORD}).encode()
            connection.send(request("POST", "/signup", body))
        eventually(lambda: is_read(server, waiting))
        refused = open_ones.enter_context(Connection(server.url)).read()
        assert (refused.status, refused.json()["code"]) == (503, "overloaded")
        assert refused.headers["retry-after"] == "1"
        with Connection(server.url, source="127.0.0.2") as other:
            assert other.send(OK).read().status == 401
        database.execute("rollback")
        assert [connection.read().status for connection in waiting] == [201] * 3
    assert "SESSIONAPI_CONNECTIONS_PER_ADDRESS" in server.log.read_text()


@pytest.mark.requirement("CWE-400")
def test_as_many_files_may_be_open_as_the_system_allows(tmp_path: Path):
    """Fails without `_raise_open_files_limit`: most systems start a process with 1,024."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    start = "import os, resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, (256, int(sys.argv[1])))"
    prefix = (sys.executable, "-c", f"{start}; os.execv(sys.argv[2], sys.argv[2:])", str(hard))
    with serving(tmp_path / "var", prefix=prefix) as server, contextlib.ExitStack() as open_ones:
        found = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        assert found == (hard, hard)
        for _ in range(400):
            open_ones.enter_context(Connection(server.url))
        assert httpx.get(f"{server.url}/healthz").status_code == 200


@pytest.mark.requirement("CWE-400")
def test_connections_never_need_more_files_than_there_are(tmp_path: Path):
    """Fails without the open files in `Connections`: accepting would fail, and so would the database."""
    start = "import os, resource as r, sys; r.setrlimit(r.RLIMIT_NOFILE, (256, 256))"
    prefix = (sys.executable, "-c", f"{start}; os.execv(sys.argv[1], sys.argv[1:])")
    with serving(tmp_path / "var", prefix=prefix) as server, contextlib.ExitStack() as open_ones:
        for number in range(3):
            for _ in range(100):
                open_ones.enter_context(Connection(server.url))
            assert server.sign_up(f"user{number}")
        assert "Too many open files" not in server.log.read_text()
