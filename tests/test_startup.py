"""The first start creates everything that it needs; a failed start ends with one clear line and status 1."""

import json
import os
import re
import shutil
import socket
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from sessionapi.errors import StartupError
from sessionapi.logging import escape_unprintable
from sessionapi.settings import Settings, load
from tests.support.server import serving
from tests.support.settings import environment

SERVER_SECRET = "the server secret of a used folder and without a comma"
OTHER_SECRET = "another server secret of the tests, with more than 32 bytes"
CHECK = "check the file, its folder and its disk"
WRITABLE = "set SESSIONAPI_DATA_DIR to a folder that this user can write"

pytestmark = pytest.mark.server


def refusal(data: Path, *arguments: str, cwd: Path | None = None, **settings: Any) -> str:
    """Start a server that must be refused, and return its message: one line, and nothing else."""
    ended = subprocess.run(
        [sys.executable, "-m", "sessionapi", "serve", "--port", "0", *arguments],
        env=environment(data, **settings),
        cwd=cwd or data.parent,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    assert (ended.returncode, ended.stdout) == (1, ""), ended
    assert ended.stderr.startswith("sessionapi: "), ended.stderr
    assert ended.stderr.endswith("\n")
    assert ended.stderr.count("\n") == 1, ended.stderr
    return ended.stderr.removeprefix("sessionapi: ").strip()


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    """Mount a small file system in memory at `folder` for the block; skips where that isn't allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode != 0:
        pytest.skip(f"mounting is refused here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def query(data: Path, statement: str) -> list[tuple]:
    with sqlite3.connect(data / "sessionapi.db") as database:
        return database.execute(statement).fetchall()


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that a server with SERVER_SECRET has used."""
    data = tmp_path_factory.mktemp("used") / "var"
    with serving(data, secret=SERVER_SECRET):
        pass
    return data


@pytest.fixture
def prepared(used: Path, tmp_path: Path) -> Path:
    """A separate used data folder for one test."""
    return Path(shutil.copytree(used, tmp_path / "var"))


def test_the_first_start_makes_folder_secret_schema_and_key_and_says_three_lines(tmp_path: Path):
    """The secret's mode fails without `0o600` in `server_secret._write_once`."""
    data = tmp_path / "new" / "var"
    with serving(data) as server:
        answer = httpx.get(f"{server.url}/readyz")
        server.stop()
        further = server.process.stdout.read() if server.process.stdout else ""
    assert answer.json() == {"status": "ready"}
    assert server.lines == [
        f"Listening on {server.url}",
        f"API page     {server.url}/docs",
        f"Data         {data.resolve()}",
    ]
    assert further == ""
    assert stat.S_IMODE((data / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert len(bytes.fromhex((data / "secret").read_text())) == 48
    assert query(data, "SELECT count(*) FROM alembic_version") == [(1,)]
    assert query(data, "SELECT state, algorithm FROM signing_keys") == [("active", "ES256")]
    assert not [path.name for path in data.glob("secret.*")]


def test_the_second_start_is_ready_with_the_same_secret_and_key(tmp_path: Path):
    data = tmp_path / "var"
    seen = []
    for _ in range(2):
        with serving(data) as server:
            assert httpx.get(f"{server.url}/readyz").status_code == 200
            keys = httpx.get(f"{server.url}/.well-known/jwks.json").json()["keys"]
        seen.append(((data / "secret").read_text(), keys))
    assert len(seen[0][1]) == 1
    assert seen[0] == seen[1]


def test_an_accepted_secret_opens_the_ring(prepared: Path):
    with serving(prepared, secret=OTHER_SECRET, secret_accepted=SERVER_SECRET) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_a_secret_that_does_not_open_the_ring_is_refused_and_not_told(prepared: Path):
    """Fails without the `except DecryptionFailed` in `Keys.load`."""
    said = refusal(prepared, secret=OTHER_SECRET)
    assert said.startswith("SESSIONAPI_SECRET does not open the key ring (key key_")
    assert "SESSIONAPI_SECRET_ACCEPTED" in said
    assert OTHER_SECRET not in said


def test_a_newer_schema_that_lacks_what_this_version_needs_is_refused_and_stays_as_it_is(prepared: Path):
    """Fails without `_obstacles` in migrations: it would start, and fail at each request."""
    with sqlite3.connect(prepared / "sessionapi.db") as database:
        database.execute("ALTER TABLE sessions DROP COLUMN device_name")
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    before = query(prepared, "SELECT sql FROM sqlite_master ORDER BY name")
    assert "schema 9999" in (said := refusal(prepared, secret=SERVER_SECRET))
    assert "newer sessionapi" in said
    assert "sessions.device_name is missing" in said
    assert query(prepared, "SELECT version_num FROM alembic_version") == [("9999",)]
    assert query(prepared, "SELECT sql FROM sqlite_master ORDER BY name") == before


@pytest.mark.parametrize(
    ("secrets", "said"),
    [
        ({"secret": "much too short"}, "SESSIONAPI_SECRET has 14 bytes; it needs at least 32"),
        ({"secret": "z" * 40}, "SESSIONAPI_SECRET repeats one byte"),
        (
            {"secret": SERVER_SECRET, "secret_accepted": "an old one"},
            "SESSIONAPI_SECRET_ACCEPTED has 10 bytes",
        ),
    ],
    ids=["short", "one byte repeated", "short accepted one"],
)
def test_a_weak_secret_is_refused_and_not_told(tmp_path: Path, secrets: dict[str, str], said: str):
    """Fails without `_refuse_weak` in `ServerSecret.__init__`."""
    line = refusal(tmp_path / "var", **secrets)
    assert said in line
    assert not any(secret and secret in line for secret in secrets.values())
    assert not (tmp_path / "var" / "sessionapi.db").exists()


def test_a_secret_file_that_has_been_emptied_is_refused_and_not_replaced(prepared: Path):
    """A new secret would end all sessions. Fails without `_refuse_weak` in `ServerSecret.__init__`."""
    (prepared / "secret").touch(mode=0o600)
    assert refusal(prepared) == (
        f"the server secret {prepared / 'secret'} has 0 bytes; it needs at least 32 random ones"
    )
    assert (prepared / "secret").read_text() == ""


def test_a_secret_file_of_raw_bytes_is_taken(tmp_path: Path):
    data = tmp_path / "var"
    data.mkdir()
    (data / "secret").write_bytes(bytes(range(200, 250)))
    with serving(data) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"access_token_ttl": 5, "refresh_grace": "10s", "metrics": "yess"},
            "SESSIONAPI_ACCESS_TOKEN_TTL=5: must be 10 to 300; "
            "SESSIONAPI_REFRESH_GRACE=10s: must be a number, 1 to 30 (durations are in seconds); "
            "SESSIONAPI_METRICS=yess: must be on or off",
        ),
        ({"access_token_ttl": 301}, "SESSIONAPI_ACCESS_TOKEN_TTL=301: must be 10 to 300"),
        (
            {"public_url": "http://localhost:abc"},
            "SESSIONAPI_PUBLIC_URL=http://localhost:abc: must be a URL such as "
            "https://login.example.com; its port is not a number from 1 to 65535",
        ),
        (
            {"public_url": "https://ada:hidden9@login.example.com"},
            "SESSIONAPI_PUBLIC_URL: must be a URL such as https://login.example.com; "
            "it must not contain a user",
        ),
        ({"rotate_after": 29}, "SESSIONAPI_ROTATE_AFTER=29 must be at least 3 x REFRESH_GRACE (30 s)"),
        (
            {"cookie_secure": "off", "public_url": "https://login.example.com"},
            "SESSIONAPI_COOKIE_SECURE=off requires a PUBLIC_URL that is http on a loopback name, "
            "not https://login.example.com",
        ),
        (
            {"cookie_secure": "maybe"},
            "SESSIONAPI_COOKIE_SECURE=maybe: must be auto, on or off",
        ),
        (
            {"database_url": "mysql://user:hidden@host/name"},
            "SESSIONAPI_DATABASE_URL must begin with sqlite:/// or postgresql://",
        ),
        (
            {"database_url": "sqlite:///:memory:"},
            "SESSIONAPI_DATABASE_URL must name a file, because each connection would open a separate "
            "in-memory database",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_setting_is_told_by_name_and_range(tmp_path: Path, settings: dict[str, Any], said: str):
    assert refusal(tmp_path / "var", **settings) == said
    assert not (tmp_path / "var").exists()


def test_only_what_is_told_to_everybody_may_name_no_user():
    """An @ after the host names no user; a mirror of the breached passwords may need a password."""
    given = {
        "issuer": "https://login.example.com/@shop",
        "breached_passwords_url": "https://ada:hidden9@copy.example.com/range",
    }
    settings = Settings(_env_file=None, **given)
    assert {name: getattr(settings, name) for name in given} == given


def test_what_is_hardly_meant_is_told_and_stops_nothing(tmp_path: Path):
    lines = (
        "SESSIONAPI_ALLOWED_ORIGIN=https://app.example.com",
        "ACCESS_TOKEN_TTL=30",
        "SESSIONAPI_SECRET:hidden9=",
    )
    (tmp_path / ".env").write_text("\n".join(lines))
    odd = {"acces_ttl": 30, "service_host": "10.0.0.1", "port_80_tcp": "tcp://10.0.0.1:80"}
    with serving(tmp_path / "var", **odd, public_url="http://auth.example.com") as server:
        pass
    told = [line["event"] for line in map(json.loads, server.log.read_text().splitlines())]
    assert told[:4] == [
        "SESSIONAPI_ACCES_TTL is not a setting; did you mean SESSIONAPI_ACCESS_TOKEN_TTL?",
        "SESSIONAPI_ALLOWED_ORIGIN is not a setting; did you mean SESSIONAPI_ALLOWED_ORIGINS?",
        "A name that begins with SESSIONAPI_ is not a setting; did you mean SESSIONAPI_SECRET?",
        "SESSIONAPI_PUBLIC_URL=http://auth.example.com: browsers keep the cookies only over https or on "
        "localhost; serve it over https",
    ]


def test_an_env_file_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / ".env").write_bytes(b"SESSIONAPI_BRAND_NAME=\xff\xfe\n")
    assert refusal(tmp_path / "var").startswith("the file .env can't be read: ")


def test_postgresql_without_a_secret_is_refused(tmp_path: Path):
    """Fails if `container._server_secret` creates a local secret for a shared database."""
    said = refusal(tmp_path / "var", database_url="postgresql://user:hidden@127.0.0.1:1/name")
    assert said.startswith("SESSIONAPI_SECRET is required with PostgreSQL")
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "postgresql://user:hidden@127.0.0.1:1/name",
            "the database at postgresql://user:***@127.0.0.1:1/name can't be used: ",
        ),
        (
            "postgresql://user:word@hidden@host:hidden/name",
            "SESSIONAPI_DATABASE_URL is not a valid URL of the form ",
        ),
    ],
    ids=["nobody listens", "a port that is no number"],
)
def test_a_postgresql_that_is_not_there_is_told_without_its_password(tmp_path: Path, url: str, said: str):
    """Fails if the line contains the plain URL, or the driver's message about it."""
    line = refusal(tmp_path / "var", database_url=url, secret=SERVER_SECRET)
    assert line.startswith(said)
    assert "hidden" not in line


def test_a_port_in_use_is_told_before_anything_is_made(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refusal(tmp_path / "var", "--port", str(port))
    assert said == (
        f"can't listen on 127.0.0.1 port {port}: Address already in use; try another port, for example "
        "`sessionapi serve --port 8001`"
    )
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("ü" * 70, "not a valid host name"),
        ("\udcff", "not a valid host name"),
        ("x" * 300, ""),
        ("..", ""),
        ("a b", ""),
        ("[::1]", ""),
        ("::1%nonsense", ""),
        ("192.0.2.1", "Cannot assign requested address"),
    ],
    ids=["long name", "byte", "long", "dots", "space", "brackets", "zone", "of another host"],
)
def test_a_host_that_can_not_be_listened_on_is_refused_with_one_that_can(
    tmp_path: Path, host: str, reason: str
):
    """Fails if `serve._listen` catches only OSError; the resolver raises the others."""
    said = refusal(tmp_path / "var", "--host", host)
    assert said.startswith(f"can't listen on {escape_unprintable(host)} port 0: {reason}")
    assert said.endswith(
        "; try another host, for example `sessionapi serve --host 127.0.0.1` or `sessionapi serve --host ::1`"
    )
    assert not (tmp_path / "var").exists()


@pytest.mark.parametrize("host", ["ü" * 70, "..", "x" * 70, "\udcff"])
def test_a_postgresql_host_that_can_not_be_encoded_is_refused(tmp_path: Path, host: str):
    """Fails without UnicodeError in `postgresql.REFUSALS`."""
    url = f"postgresql://user:hidden@{host}/name"
    said = refusal(tmp_path / "var", database_url=url, secret=SERVER_SECRET)
    assert said == (
        f"the database at postgresql://user:***@{escape_unprintable(host)}/name can't be used: "
        "the URL has a host or a name that cannot be encoded; "
        "check the URL, and that PostgreSQL accepts connections there"
    )


@pytest.mark.parametrize("scheme", ["sqlite:///", "postgresql://user:hidden@127.0.0.1:1/"])
def test_a_null_byte_in_a_database_url_is_refused_before_anything_is_made(tmp_path: Path, scheme: str):
    said = refusal(tmp_path / "var", database_url=f"{scheme}a%00b", secret=SERVER_SECRET)
    assert said == "SESSIONAPI_DATABASE_URL has a null byte (%00), which no name may contain"
    assert not (tmp_path / "var").exists()


def test_a_null_byte_in_the_data_folder_is_refused():
    """An environment variable can't contain one, but a `.env` file can."""
    with pytest.raises(StartupError) as refused:
        load({"data_dir": "a\0b"})
    assert refused.value.detail == "SESSIONAPI_DATA_DIR=a\0b: must not contain a null byte"


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_a_database_that_is_not_a_file_is_refused_and_keeps_its_mode(
    tmp_path: Path, make: Callable[[Path], None]
):
    """Fails without `is_file` in `make_private`: `sqlite:////tmp` closed /tmp to all other users."""
    make(place := tmp_path / "place")
    place.chmod(0o777)
    said = refusal(tmp_path / "var", database_url=f"sqlite:///{place}")
    assert said == f"the database at sqlite:///{place} can't be used: it is not a file; {CHECK}"
    assert stat.S_IMODE(place.stat().st_mode) == 0o777


def test_a_folder_of_a_database_url_that_can_not_be_made_is_named(tmp_path: Path):
    """Fails where the message names DATA_DIR instead."""
    (tmp_path / "file").touch()
    url = f"sqlite:///{tmp_path}/file/sessionapi.db"
    said = refusal(tmp_path / "var", database_url=url)
    assert said == (
        f"the folder of SESSIONAPI_DATABASE_URL={url} can't be created: File exists; "
        "name a file in a folder that this user can write"
    )


def test_a_file_that_is_no_database_is_refused_and_stays_as_it_is(tmp_path: Path):
    data = tmp_path / "var"
    data.mkdir()
    (data / "sessionapi.db").write_text(text := "no database, only words, many of them. " * 100)
    assert refusal(data).endswith(f"can't be used: file is not a database; {CHECK}")
    assert (data / "sessionapi.db").read_text() == text


@pytest.mark.parametrize("place", ["file", "file/var"])
def test_a_data_folder_that_can_not_be_one_is_refused(tmp_path: Path, place: str):
    (tmp_path / "file").touch()
    data = tmp_path / place
    assert refusal(data, cwd=tmp_path).startswith(f"the data folder {data} can't be written: ")


def test_a_read_only_data_folder_is_refused(tmp_path: Path):
    with mounted(tmp_path / "disk", "ro") as disk:
        said = refusal(disk / "var", cwd=tmp_path)
    assert said == f"the data folder {disk / 'var'} can't be written: Read-only file system; {WRITABLE}"


def test_a_data_folder_that_became_read_only_is_refused(tmp_path: Path):
    with mounted(tmp_path / "disk", "size=4m") as disk:
        with serving(disk / "var"):
            pass
        remounted = subprocess.run(["mount", "-o", "remount,ro", str(disk)], capture_output=True, text=True)
        assert remounted.returncode == 0, remounted.stderr
        said = refusal(disk / "var", cwd=tmp_path)
    assert said == f"the data folder {disk / 'var'} can't be written: Read-only file system; {WRITABLE}"


def test_a_database_on_a_read_only_disk_is_refused(tmp_path: Path):
    with mounted(tmp_path / "disk", "ro") as disk:
        said = refusal(tmp_path / "var", database_url=f"sqlite:///{disk}/sessionapi.db")
    assert said.endswith(f"/disk/sessionapi.db can't be used: Read-only file system; {CHECK}")


@pytest.mark.parametrize(
    ("space", "fails", "kept"),
    [
        ("nr_inodes=2", rf"the data folder \S+ can't be written: No space left on device; {WRITABLE}", []),
        (
            "nr_inodes=4",
            r"the server secret \S+ can't be read or created: No space left on device; "
            r"check its permissions and the free space on its disk",
            ["lock"],
        ),
        (
            "size=4k",
            rf"the database at \S+ can't be used: database or disk is full; {CHECK}",
            ["lock", "secret"],
        ),
        ("size=16k", rf"the database at \S+ can't be used: disk I/O error; {CHECK}", ["lock", "secret"]),
        (
            "size=128k",
            rf"the database at \S+ can't be used: database or disk is full; {CHECK}",
            ["lock", "secret"],
        ),
    ],
    ids=["folder", "secret", "first page", "log", "key"],
)
def test_a_full_disk_is_told_wherever_it_is_met_and_room_repairs_it(
    tmp_path: Path, space: str, fails: str, kept: list[str]
):
    """Each size fails another step. Without `finally` in `server_secret._write_once` half a secret stays."""
    with mounted(tmp_path / "disk", space) as disk:
        assert re.fullmatch(fails, refusal(disk / "var", cwd=tmp_path))
        left = [path.name for path in sorted((disk / "var").glob("*")) if "sessionapi.db" not in path.name]
        assert left == kept
        subprocess.run(["mount", "-o", "remount,size=8m,nr_inodes=100", str(disk)], check=True)
        with serving(disk / "var") as server:
            assert httpx.get(f"{server.url}/readyz").status_code == 200
