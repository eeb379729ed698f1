"""The commands of docs/operations.md, run as printed: backups, restores, secrets and keys."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog
import typer.main
from click.testing import Result

from sessionapi import cli
from sessionapi.keys import keyring
from sessionapi.keys.server_secret import ServerSecret
from sessionapi.models import StoredKey
from sessionapi.storage import migrations
from tests.support import postgres
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running, running
from tests.support.commands import Commands
from tests.support.postgres import Cluster
from tests.support.server import Server, serving
from tests.support.settings import SERVER_SECRET, environment
from tests.test_readme import commands_of

PAGE = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
OLD = "the server secret that has been in use until now"
NEW = "the server secret that takes its place from now on"


def blocks(heading: str) -> list[str]:
    """Return the shell blocks under a heading of the page."""
    part = re.split(rf"^##+ {heading}$", PAGE, flags=re.MULTILINE)[1]
    return re.findall(r"```sh\n(.*?)```", re.split(r"^##+ ", part, flags=re.MULTILINE)[0], re.DOTALL)


def run(script: str, folder: Path, **settings: Any) -> str:
    own = environment(folder / "var", **settings)
    path = f"{Path(sys.executable).parent}:{postgres.WHEEL}:{own['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**own, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def live_before_and_after(folder: Path, backup: str, **settings: Any) -> tuple[dict, dict]:
    """Make a backup between the sign-ups and a logout; return the tokens of who stayed and of who left."""
    with serving(folder / "var", **settings) as server:
        ada, bob = server.sign_up("ada"), server.sign_up("bob")
        run(backup, folder, **settings)
        assert server.post("/logout", refresh_token=bob["refresh_token"]).status_code == 204
        server.sign_up("carol")
    return ada, bob


def assert_restored(server: Server, ada: dict, bob: dict) -> None:
    for tokens in (ada, bob):
        assert refusal(server.refresh(tokens)) == (401, "session_revoked", "revoked_by_admin")
    logins = [server.post("/login", username=name, password=PASSWORD) for name in ("ada", "bob", "carol")]
    assert [answer.status_code for answer in logins] == [200, 200, 401]


@pytest.mark.server
def test_a_backup_of_sqlite_is_restored_and_what_came_back_to_life_is_ended(tmp_path: Path):
    """Fails without the last line of the restore: bob's session, which he had ended, is active again.

    Fails without `umask` too, because other users of the host could read the backup.
    """
    (backup,), (restore,) = blocks("SQLite")[:1], blocks("SQLite")[1:]
    ada, bob = live_before_and_after(tmp_path, backup)
    assert stat.S_IMODE((tmp_path / "backup.db").stat().st_mode) == 0o600
    assert run(restore, tmp_path) == "2\n"
    with serving(tmp_path / "var") as server:
        assert_restored(server, ada, bob)


@pytest.mark.server
async def test_a_dump_of_postgresql_is_restored_and_what_came_back_to_life_is_ended(
    tmp_path: Path, cluster: Cluster
):
    (backup,), (restore,) = blocks("PostgreSQL")[:1], blocks("PostgreSQL")[1:]
    url, restored = cluster.create(f"kept{os.urandom(4).hex()}"), f"restored{os.urandom(4).hex()}"
    await migrations.migrate(url)
    settings = {"database_url": url, "secret": SERVER_SECRET}
    ada, bob = live_before_and_after(tmp_path, backup, **settings)
    assert stat.S_IMODE((tmp_path / "backup.dump").stat().st_mode) == 0o600
    said = run(restore.replace("restored", restored), tmp_path, **settings)
    assert said == "The schema is up to date.\n2\n"
    moved = {**settings, "database_url": url.rpartition("/")[0] + f"/{restored}"}
    with serving(tmp_path / "var", **moved) as server:
        assert_restored(server, ada, bob)


async def test_after_a_lost_secret_everybody_logs_in_again(
    commands: Commands, make_settings, clock, monkeypatch: pytest.MonkeyPatch
):
    """Fails without `abandon_keys` in container.bootstrap: no operation on the keys is possible any more."""
    async with running(make_settings(secret=OLD), clock) as service:
        tokens = await service.sign_up()
    monkeypatch.setenv("SESSIONAPI_SECRET", NEW)
    assert "see sessionapi keys abandon" in (await carried_out(commands, "keys", "list")).stderr
    assert (await carried_out(commands, "keys", "abandon")).exit_code == 1
    listed = await carried_out(commands, *words("The server secret is lost", "keys abandon"))
    assert re.findall(r" (dropped|active) ", listed.stdout) == ["dropped", "active"]
    await carried_out(commands, *words("The server secret is lost", "sessions revoke"))
    async with running(make_settings(secret=NEW), clock) as service:
        assert refusal(await service.refresh(tokens))[1] == "invalid_refresh_token"
        assert (await service.get("/protected", await service.log_in())).status_code == 200
        again = await carried_out(commands, "keys", "abandon", "--yes")
        assert re.findall(r" (dropped|active) ", again.stdout) == ["dropped", "active"]


async def test_after_both_have_leaked_what_they_sign_is_refused_and_nobody_is_logged_in(
    commands: Commands, make_settings, clock, monkeypatch: pytest.MonkeyPatch
):
    """Fails if `abandon` leaves a key that the old secret opens."""
    async with running(make_settings(secret=OLD), clock) as service:
        tokens = await service.sign_up()
        forged = sign(service, (await service.container.keys.all())[0], tokens)
        assert (await service.get("/protected", forged)).status_code == 200
    monkeypatch.setenv("SESSIONAPI_SECRET", NEW)
    for command in ("keys abandon", "sessions revoke"):
        done = await carried_out(commands, *words("Database and secret have leaked", command))
        assert done.exit_code == 0, done.output
    async with running(make_settings(secret=NEW), clock) as service:
        assert refusal(await service.get("/protected", forged))[:2] == (401, "invalid_token")
        assert refusal(await service.refresh(tokens))[1] == "invalid_refresh_token"
        assert service.rows("select count(*) from sessions where revoked_at is null") == [(0,)]


async def test_after_a_leaked_secret_it_is_replaced_and_so_are_the_keys_and_nobody_is_logged_out(
    commands: Commands, make_settings, clock, monkeypatch: pytest.MonkeyPatch
):
    """Fails if `reencrypt` leaves a key that the old secret opens, or if a renewal brings no new spelling."""
    async with running(make_settings(secret=OLD), clock) as service:
        tokens = await service.sign_up()
    for name, value in (("SECRET", NEW), ("SECRET_ACCEPTED", OLD), ("JWKS_MAX_AGE", "1")):
        monkeypatch.setenv(f"SESSIONAPI_{name}", value)
    for command in ("keys reencrypt", "keys rotate"):
        done = await carried_out(commands, *words("The server secret has leaked", command))
        assert done.exit_code == 0, done.output
    async with running(make_settings(secret=NEW, secret_accepted=OLD), clock) as service:
        for stored in await service.container.keys.all():
            with pytest.raises(keyring.DecryptionFailed):
                unsealed(OLD, stored)
        renewed = (await service.refresh(tokens)).json()
    async with running(make_settings(secret=NEW), clock) as service:
        assert (await service.refresh(renewed)).status_code == 200


async def carried_out(commands: Commands, *arguments: str) -> Result:
    """Run a command between two runs of the app, and restore the logging that the app had set up."""
    done = await commands.beside(*arguments)
    structlog.reset_defaults()
    return done


def unsealed(secret: str, stored: StoredKey) -> keyring.SigningKey:
    return keyring.unseal(ServerSecret(secret.encode()).derive("key ring"), stored)


def sign(service: Running, stored: StoredKey, tokens: dict) -> str:
    """Return a token that an attacker with the database and the secret can sign."""
    key = unsealed(OLD, stored)
    claims = jwt.decode(tokens["access_token"], options={"verify_signature": False})
    header = {"typ": "at+jwt", "kid": key.kid}
    return jwt.encode({**claims, "jti": "made up"}, key.private_key, algorithm="ES256", headers=header)


def words(heading: str, command: str) -> list[str]:
    """Return the words of one command under a heading of the page, which must contain it."""
    script = "".join(blocks(heading))
    found = re.search(rf"^sessionapi ({command}.*)$", script, re.MULTILINE)
    assert found, f"{command} isn't under {heading}"
    return found.group(1).split()


def test_every_command_of_the_page_is_one():
    known = commands_of(typer.main.get_command(cli.app))
    told = re.findall(r"sessionapi ((?:[a-z][a-z-]+)(?: [a-z][a-z-]+)?)", PAGE)
    named = {each for each in told if each.split()[0] in {name.split()[0] for name in known}}
    assert len(named) > 10
    assert all(each in known or each.split()[0] in known for each in named)
