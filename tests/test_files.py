"""The sources of settings, secrets and the embedded database, and the handling of their files."""

import asyncio
import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from sessionapi.keys import keyring
from sessionapi.keys.server_secret import ServerSecret, _hkdf
from sessionapi.settings import Settings
from sessionapi.storage import Store
from tests.support.api_client import PASSWORD, bearer, refusal
from tests.support.server import Server, serving
from tests.support.settings import environment
from tests.support.waiting import eventually
from tests.test_startup import query
from tests.test_startup import refusal as refusal_at_start
from tests.test_workers import all_workers, only

TEXT = "a server secret without spaces around it and of some length"

pytestmark = pytest.mark.server


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def run(data: Path | str, *arguments: str, cwd: Path, **settings: object) -> str:
    """Run a command as a process, and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "sessionapi", *arguments],
        env=environment(data, **settings),
        cwd=cwd,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- secrets and empty values


@pytest.mark.parametrize("end", ["\n", " \r\n\n"])
def test_a_secret_of_the_environment_with_a_line_end_is_the_secret_of_the_file(tmp_path: Path, end: str):
    """Fails if the value in the environment keeps its surrounding spaces: it would be another secret."""
    data = tmp_path / "var"
    data.mkdir()
    (data / "secret").write_text(TEXT + end)
    with serving(data) as server:
        tokens = server.sign_up()
    for given in (TEXT, TEXT + end):
        with serving(data, secret=given) as server:
            tokens = server.refresh(tokens).raise_for_status().json()
    with serving(
        data, secret="another secret of that length which is new", secret_accepted=TEXT + end
    ) as server:
        assert server.refresh(tokens).status_code == 200


@pytest.mark.parametrize(
    "line",
    [f'SESSIONAPI_SECRET="{TEXT}\\n"', f'SESSIONAPI_SECRET="{TEXT}\n"', f"SESSIONAPI_SECRET=' {TEXT} '"],
)
def test_a_secret_of_an_env_file_with_a_line_end_is_the_secret_of_the_file(tmp_path: Path, line: str):
    data = tmp_path / "var"
    data.mkdir()
    (data / "secret").write_text(TEXT + "\n")
    with serving(data) as server:
        tokens = server.sign_up()
    (tmp_path / ".env").write_text(line + "\n")
    with serving(data) as server:
        assert server.refresh(tokens).status_code == 200


def test_what_an_earlier_version_sealed_under_a_value_with_white_space_around_it_still_opens(tmp_path: Path):
    """Fails without the unchanged form in `ServerSecret._all`: no server would start after the upgrade."""
    data = tmp_path / "var"
    with serving(data, secret=TEXT) as server:
        tokens = server.sign_up()
    sealed_by_an_earlier_version(data, f" {TEXT}\n")
    with serving(data, secret=f" {TEXT}\n") as server:
        assert server.refresh(tokens).status_code == 200
        run(data, "keys", "reencrypt", cwd=tmp_path, secret=f" {TEXT}\n")
    with serving(data, secret=TEXT) as server:
        assert server.refresh(tokens).status_code == 200


def sealed_by_an_earlier_version(data: Path, secret: str) -> None:
    """Seal the private keys under the unchanged text, as version 0.1 did."""

    async def reseal() -> None:
        store = Store(f"sqlite:///{data}/sessionapi.db")
        async with store.begin() as tx:
            for stored in await tx.signing_keys.all():
                key = keyring.unseal(ServerSecret(TEXT.encode()).derive("key ring"), stored)
                sealed = keyring.seal(_hkdf(secret.encode(), "key ring"), key.kid, key.private_key)
                await tx.signing_keys.reseal(stored, sealed)
        await store.close()

    asyncio.run(reseal())


def test_white_space_inside_a_secret_counts(tmp_path: Path):
    data = tmp_path / "var"
    with serving(data, secret=TEXT):
        pass
    assert "does not open the key ring" in refusal_at_start(data, secret=TEXT.replace(" ", "\n", 1))


def test_a_secret_of_the_environment_may_be_raw_bytes(tmp_path: Path):
    """Fails with a traceback if the value is encoded as UTF-8: invalid UTF-8 arrives as lone surrogates."""
    data = tmp_path / "var"
    data.mkdir()
    raw = bytes(range(128, 170))
    (data / "secret").write_bytes(raw + b"\n")
    with serving(data) as server:
        tokens = server.sign_up()
    with serving(data, secret=os.fsdecode(raw)) as server:
        assert server.refresh(tokens).status_code == 200


@pytest.mark.parametrize("empty", ["", "\n"])
def test_every_setting_that_is_empty_counts_as_unset(tmp_path: Path, empty: str):
    """Fails without `env_ignore_empty`: most would be refused, and DATA_DIR would be the current folder."""
    names = [name for name in Settings.model_fields if name not in ("data_dir", "stop_delay", "port")]
    with serving(tmp_path / "var", **dict.fromkeys(names, empty)) as server:
        assert httpx.get(f"{server.url}/readyz").status_code == 200


def test_an_empty_data_folder_is_the_default_one(tmp_path: Path):
    """Fails if an empty path means the current folder."""
    run("", "users", "list", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["var"]


def test_an_empty_variable_leaves_the_value_of_the_env_file(tmp_path: Path):
    (tmp_path / ".env").write_text("SESSIONAPI_BRAND_NAME=Orchard\nSESSIONAPI_ISSUER=\nSESSIONAPI_METRICS=\n")
    with serving(tmp_path / "var", brand_name="") as server:
        assert "Orchard" in httpx.get(f"{server.url}/sign-in").text
        assert httpx.get(f"{server.url}/metrics").status_code == 404


def test_a_value_with_a_line_end_is_the_value(tmp_path: Path):
    with serving(tmp_path / "var", metrics="on\n", public_url="http://localhost:8000\n") as server:
        assert httpx.get(f"{server.url}/metrics").status_code == 200


# --- names of folders


NAMES = ["50% a%41b %s %(here)s %%", "what? a=b#1&c+d:e@f", "Ordner-äöü-数据 q'uo\"te\\"]


@pytest.mark.parametrize("name", NAMES)
def test_a_data_folder_may_have_any_name(tmp_path: Path, name: str):
    """Fails if the path is put into a URL unescaped, or decoded twice."""
    data = tmp_path / name
    with serving(data) as server:
        server.sign_up()
        assert httpx.get(f"{server.url}/readyz").status_code == 200
    assert sorted(path.name for path in data.iterdir()) == ["lock", "secret", "sessionapi.db"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([name, f"{name}.log"])
    assert "ada" in run(data, "users", "list", cwd=tmp_path)
    assert "up to date" in run(data, "migrate", "--check", cwd=tmp_path)
    assert "Traceback" not in server.log.read_text()


def test_a_data_folder_may_have_a_name_that_is_not_utf_8(tmp_path: Path):
    """Fails if the name is decoded with replacements, or printed unescaped."""
    data = tmp_path / os.fsdecode(b"latin-\xe4")
    with serving(data) as server:
        server.sign_up()
    assert "ada" in run(data, "users", "list", cwd=tmp_path)
    assert [os.fsencode(path.name) for path in tmp_path.iterdir() if path.is_dir()] == [b"latin-\xe4"]


@pytest.mark.parametrize("name", NAMES)
def test_a_database_address_may_name_any_file(tmp_path: Path, name: str):
    data = tmp_path / "var"
    with serving(data) as server:
        server.sign_up()
    copy = tmp_path / name / "copy.db"
    url = f"sqlite:///{quote(str(copy))}"
    run(data, "copy-database", "--to", url, cwd=tmp_path)
    assert copy.exists()
    assert "ada" in run(data, "users", "list", cwd=tmp_path, database_url=url)


def test_options_behind_an_sqlite_address_are_refused(tmp_path: Path):
    """These characters would be part of the file's name, or be ignored."""
    said = refusal_at_start(tmp_path / "var", database_url=f"sqlite:///{tmp_path}/a.db?mode=ro")
    assert said == (
        "SESSIONAPI_DATABASE_URL has options, which sqlite:/// does not support; "
        "in a file name, write ? as %3F"
    )


def test_the_migrations_are_found_in_a_folder_of_any_name(tmp_path: Path):
    """Fails if alembic's configuration interpolates the `%` of the path."""
    root = Path(__file__).parents[1]
    installed = tmp_path / "50%(here)s" / "site"
    shutil.copytree(root / "src" / "sessionapi", installed / "sessionapi")
    shutil.copytree(root / "alembic", installed / "sessionapi" / "migrations")
    (tmp_path / "var").mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "sessionapi", "migrate"],
        env={**environment(tmp_path / "var"), "PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (0, "The schema is up to date.\n"), done.stderr


# --- modes


def test_a_readable_secret_is_named_at_the_start_with_what_to_do(tmp_path: Path):
    data = tmp_path / "var"
    with serving(data):
        pass
    (data / "secret").chmod(0o640)
    with serving(data) as server:
        told = [line["event"] for line in map(json.loads, server.log.read_text().splitlines())]
    path = data / "secret"
    assert (
        f"Other users on this host can read {path}, which contains the server secret. Run: chmod 600 {path}"
        in told
    )
    assert mode(path) == 0o640
    path.chmod(0o600)
    server.log.write_text("")
    with serving(data) as server:
        assert "chmod" not in server.log.read_text()


def test_an_env_file_with_a_secret_that_others_can_read_is_named_at_the_start(tmp_path: Path):
    (tmp_path / ".env").write_text(f"SESSIONAPI_SECRET={TEXT}\n")
    (tmp_path / ".env").chmod(0o644)
    with serving(tmp_path / "var") as server:
        assert (
            "Other users on this host can read .env, which contains a secret. Run: chmod 600 .env"
            in server.log.read_text()
        )
    (tmp_path / ".env").write_text("SESSIONAPI_BRAND_NAME=Orchard\n")
    with serving(tmp_path / "other") as server:
        assert "chmod" not in server.log.read_text()


# --- the file replaced under a running server


def replace_by_another(database: Path) -> None:
    other = database.with_name("other.db")
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"VACUUM INTO '{other}'")
    other.replace(database)


def move_away(database: Path) -> None:
    database.rename(database.with_name("moved.db"))


def remove(suffix: str) -> Callable[[Path], None]:
    def act(database: Path) -> None:
        Path(f"{database}{suffix}").unlink()

    act.__name__ = f"remove {suffix or 'the file'}"
    return act


def remove_all(database: Path) -> None:
    for path in database.parent.glob("sessionapi.db*"):
        path.unlink()


def move_the_folder(database: Path) -> None:
    database.parent.rename(database.parent.with_name("moved"))


def restore_while_running(database: Path) -> None:
    """The procedure of docs/operations.md, without stopping the service."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("VACUUM INTO '" + str(database.with_name("restored.db")) + "'")
    for suffix in ("-wal", "-shm"):
        Path(f"{database}{suffix}").unlink()
    database.with_name("restored.db").replace(database)


CHANGES = [
    replace_by_another,
    move_away,
    remove(""),
    remove("-wal"),
    remove("-shm"),
    remove_all,
    move_the_folder,
    restore_while_running,
]


def started(server: Server, number: int) -> None:
    """Wait until each worker responds: one that starts after the change would open the other file."""
    if number > 1:
        workers = all_workers(server, number)
        for worker in workers:
            with only(worker, workers):
                assert httpx.get(f"{server.url}/readyz", timeout=60).status_code == 200


@pytest.mark.parametrize(
    ("change", "workers"),
    [*((change, 1) for change in CHANGES), (replace_by_another, 2)],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_file_that_is_replaced_under_the_server_is_noticed_and_nothing_more_is_acknowledged(
    tmp_path: Path, change: Callable[[Path], None], workers: int
):
    """Fails without `SqliteFile.check` at the start of each transaction."""
    data = tmp_path / "var"
    with serving(data, "--workers", str(workers)) as server:
        tokens = server.sign_up("ada")
        started(server, workers)
        change(data / "sessionapi.db")
        answers = [
            server.post("/signup", username="bob", password=PASSWORD),
            server.post("/login", username="ada", password=PASSWORD),
            server.refresh(tokens),
            httpx.delete(f"{server.url}/sessions", headers=bearer(tokens)),
            server.post("/logout", refresh_token=tokens["refresh_token"]),
        ]
        assert {refusal(answer)[:2] for answer in answers} == {(503, "unavailable")}
        ready = httpx.get(f"{server.url}/readyz")
        assert refusal(ready)[:2] == (503, "unavailable")
        assert ready.json()["detail"] == (
            "The database file was replaced or removed while this process was running. Nothing is stored."
        )
        assert str(tmp_path) not in ready.text
    lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    (told, *_) = [line for line in lines if line["event"] == "not ready"]
    assert str(data / "sessionapi.db") in told["reason"]
    assert "docs/operations.md" in told["remedy"]
    assert len([line for line in lines if line["event"] == "not ready"]) <= workers
    assert "Traceback" not in server.log.read_text()


def test_a_quiet_server_notices_by_itself_within_a_poll(tmp_path: Path):
    data = tmp_path / "var"
    with serving(data, revocation_poll=0.05) as server:
        server.sign_up("ada")  # the process has started
        move_away(data / "sessionapi.db")
        eventually(lambda: "sessionapi.db was removed while the server was running" in server.log.read_text())


def test_a_file_that_comes_back_is_used_again(tmp_path: Path):
    data = tmp_path / "var"
    with serving(data) as server:
        server.sign_up("ada")
        move_away(data / "sessionapi.db")
        assert httpx.get(f"{server.url}/readyz").status_code == 503
        (data / "moved.db").rename(data / "sessionapi.db")
        eventually(lambda: httpx.get(f"{server.url}/readyz").status_code == 200)
        server.sign_up("bob")
    assert query(data, "select username from users order by 1") == [("ada",), ("bob",)]


def test_what_was_acknowledged_before_the_log_was_removed_is_in_the_file_when_the_server_has_stopped(
    tmp_path: Path,
):
    data = tmp_path / "var"
    with serving(data) as server:
        server.sign_up("ada")
        remove("-wal")(data / "sessionapi.db")
        assert httpx.get(f"{server.url}/readyz").status_code == 503
    assert query(data, "select username from users") == [("ada",)]
    with serving(data) as server:
        server.log_in("ada")


def test_other_processes_and_an_empty_pool_are_not_taken_for_a_replacement(tmp_path: Path):
    """Commands run, a backup is made, the log is emptied, and the server stays ready."""
    data = tmp_path / "var"
    with serving(data) as server:
        server.sign_up("ada")
        for number in range(3):
            assert "ada" in run(data, "users", "list", cwd=tmp_path)
            with closing(sqlite3.connect(data / "sessionapi.db")) as database:
                database.execute("pragma wal_checkpoint(truncate)")
                database.execute("vacuum")
                database.execute(f"VACUUM INTO '{tmp_path}/backup{number}.db'")
            assert httpx.get(f"{server.url}/readyz").status_code == 200
            server.sign_up(f"user{number}")
        assert "not ready" not in server.log.read_text()
