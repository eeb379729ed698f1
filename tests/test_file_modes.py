"""Permissions of the stored files: they are private from their first byte, whatever the umask."""

import os
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import serving
from tests.support.settings import environment

pytestmark = [pytest.mark.server, pytest.mark.measured]

NEEDS_STRACE = pytest.mark.skipif(shutil.which("strace") is None, reason="strace isn't installed")
UMASK = ("sh", "-c", 'umask 022; exec "$0" "$@"')


def modes(folder: Path) -> dict[str, str]:
    return {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()}


PRIVATE = dict.fromkeys(("sessionapi.db", "sessionapi.db-shm", "sessionapi.db-wal"), "0o600")


def test_files_are_private_while_the_server_runs(tmp_path: Path):
    """Fails without `make_private`: SQLite creates the database and its log with mode 0644."""
    data = tmp_path / "var"
    with serving(data, prefix=UMASK) as server:
        server.sign_up()
        assert modes(data) == {**PRIVATE, "lock": "0o600", "secret": "0o600"}
        assert oct(stat.S_IMODE(data.stat().st_mode)) == "0o700"


def test_files_at_another_address_are_private_too(tmp_path: Path):
    """Fails if only the data folder is made private."""
    elsewhere = tmp_path / "elsewhere" / "deep"
    with serving(
        tmp_path / "var", prefix=UMASK, database_url=f"sqlite:///{elsewhere}/sessionapi.db"
    ) as server:
        server.sign_up()
        assert modes(elsewhere) == PRIVATE
        assert oct(stat.S_IMODE(elsewhere.stat().st_mode)) == "0o700"


def test_files_that_an_earlier_version_has_made_become_private(tmp_path: Path):
    """Fails if the mode is set only at the creation. The log of a server that was killed is there too."""
    data = tmp_path / "var"
    with serving(data) as server:
        server.sign_up()
        server.kill()
    for path in data.glob("sessionapi.db*"):
        path.chmod(0o644)
    assert len(modes(data)) == 5
    with serving(data) as server:
        server.log_in()
        assert modes(data) == {**PRIVATE, "lock": "0o600", "secret": "0o600"}


def test_files_that_commands_make_are_private(tmp_path: Path):
    """Fails if only `serve` makes files private: the target of a copy has the same contents."""
    target = tmp_path / "new" / "copy.db"
    for command in (("users", "list"), ("copy-database", "--to", f"sqlite:///{target}")):
        done = subprocess.run(
            [*UMASK, sys.executable, "-m", "sessionapi", *command],
            env=environment(tmp_path / "var"),
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
    assert modes(tmp_path / "var") == {"lock": "0o600", "secret": "0o600", "sessionapi.db": "0o600"}
    assert modes(target.parent) == {"copy.db": "0o600"}
    assert oct(stat.S_IMODE(target.parent.stat().st_mode)) == "0o700"


@NEEDS_STRACE
def test_files_are_never_created_with_more(tmp_path: Path):
    """Fails if a file is created open and then closed to others: its first bytes could be read."""
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-e", "trace=open,openat,creat", "-o", str(trace))
    with serving(tmp_path / "var", prefix=strace) as server:
        server.sign_up()
        os.killpg(server.process.pid, signal.SIGTERM)  # strace ignores the signal, and ends with the server
        server.process.wait(60)
    created = [
        line for line in trace.read_text().splitlines() if "O_CREAT" in line and f'"{tmp_path}/var' in line
    ]
    names = {line.split('"')[1].rpartition("/")[2].split(".")[-1] for line in created}
    assert {"lock", "db", "db-wal", "db-shm"} <= names
    # The mode counts only if the call creates the file: SQLite also passes 0644 when it opens an existing
    # one.
    assert [line for line in created if "0600" not in line and 'sessionapi.db"' not in line] == []
