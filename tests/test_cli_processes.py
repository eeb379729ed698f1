"""The command line as processes, next to a running server and on a terminal."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.api_client import PASSWORD
from tests.support.commands import talk
from tests.support.server import Server, serving
from tests.support.settings import environment

TYPED = PASSWORD + "\n"

pytestmark = [pytest.mark.server, pytest.mark.measured]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("served") / "var") as it:
        yield it


def sessionapi(server: Server, *arguments: str, given: str = "") -> str:
    """Run a command as a process next to the server, and return its output."""
    done = subprocess.run(
        [sys.executable, "-m", "sessionapi", *arguments],
        env=environment(server.data),
        cwd=server.log.parent,
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_an_added_user_logs_in_and_the_role_admin_opens_the_administration(server: Server):
    added = sessionapi(server, "users", "add", "grace", given=TYPED).strip()
    tokens = server.log_in("grace")
    assert tokens["user"]["id"] == added
    assert server.get("/admin/users", tokens).status_code == 403
    assert sessionapi(server, "users", "set-roles", "grace", "admin") == ""
    assert server.get("/admin/users", tokens).status_code == 200


def test_a_disabled_user_is_refused_by_the_server_beside(server: Server):
    sessionapi(server, "users", "add", "alan", given=TYPED)
    tokens = server.log_in("alan")
    sessionapi(server, "users", "disable", "alan")
    answer = server.refresh(tokens)
    assert (answer.status_code, answer.json()["reason"]) == (401, "user_disabled")
    assert server.post("/login", username="alan", password=PASSWORD).status_code == 401


def test_a_one_time_token_sets_a_new_password_over_http_once(server: Server):
    sessionapi(server, "users", "add", "edith", given=TYPED)
    said = sessionapi(server, "users", "reset-password", "edith")
    token = re.search(r"^Token  (pr_[0-9a-f]{64})$", said, re.MULTILINE).group(1)
    body = {"token": token, "new_password": "another horse battery"}
    answers = [server.post("/password-reset", **body).status_code for _ in range(2)]
    assert answers == [204, 422]
    assert server.post("/login", username="edith", password=PASSWORD).status_code == 401
    server.log_in("edith", "another horse battery")
    assert token not in server.log.read_text()


def test_revoke_all_ends_everybodys_session_at_the_server_beside(server: Server):
    sessions = []
    for name in ("mary", "joan"):
        sessionapi(server, "users", "add", name, given=TYPED)
        sessions.append(server.log_in(name))
    assert int(sessionapi(server, "sessions", "revoke", "--all")) >= 2
    for each in sessions:
        answer = server.refresh(each)
        assert (answer.status_code, answer.json()["reason"]) == (401, "revoked_by_admin")


@pytest.mark.timeout(60)
def test_on_a_terminal_a_password_is_asked_for_twice_unseen_and_a_delete_is_confirmed(tmp_path: Path):
    data = tmp_path / "var"
    asked = (
        ("Password: ", PASSWORD),
        ("confirmation: ", "something else"),
        ("Password: ", PASSWORD),
        ("confirmation: ", PASSWORD),
    )
    status, said = talk(data, "users", "add", "ada", answers=asked)
    assert (status, PASSWORD in said) == (0, False)
    user_id = re.search(r"user_\w+", said).group()
    status, said = talk(data, "users", "delete", "ada", answers=(("[y/N]:", "n"),))
    assert (status, "Aborted" in said) == (1, True)
    status, said = talk(data, "users", "list")
    assert (status, user_id in said) == (0, True)
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in said.splitlines()) <= 80
    assert talk(data, "users", "delete", "ada", answers=(("[y/N]:", "y"),))[0] == 0
    assert user_id not in talk(data, "users", "list")[1]
