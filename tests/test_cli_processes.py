"""The command line as processes, next to a running server and on a terminal."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.api_client import PASSWORD, bearer
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


def log_in(server: Server, username: str, password: str = PASSWORD) -> httpx.Response:
    return httpx.post(f"{server.url}/login", json={"username": username, "password": password})


def test_an_added_user_logs_in_and_the_role_admin_opens_the_administration(server: Server):
    added = sessionapi(server, "users", "add", "grace", given=TYPED).strip()
    tokens = log_in(server, "grace").json()
    assert tokens["user"]["id"] == added
    assert httpx.get(f"{server.url}/admin/users", headers=bearer(tokens)).status_code == 403
    assert sessionapi(server, "users", "set-roles", "grace", "admin") == ""
    assert httpx.get(f"{server.url}/admin/users", headers=bearer(tokens)).status_code == 200


def test_a_disabled_user_is_refused_by_the_server_beside(server: Server):
    sessionapi(server, "users", "add", "alan", given=TYPED)
    tokens = log_in(server, "alan").json()
    sessionapi(server, "users", "disable", "alan")
    answer = httpx.post(f"{server.url}/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert (answer.status_code, answer.json()["reason"]) == (401, "user_disabled")
    assert log_in(server, "alan").status_code == 401


def test_a_one_time_token_sets_a_new_password_over_http_once(server: Server):
    sessionapi(server, "users", "add", "edith", given=TYPED)
    said = sessionapi(server, "users", "reset-password", "edith")
    token = re.search(r"^Token  (pr_[0-9a-f]{64})$", said, re.MULTILINE).group(1)
    body = {"token": token, "new_password": "another horse battery"}
    answers = [httpx.post(f"{server.url}/password-reset", json=body).status_code for _ in range(2)]
    assert answers == [204, 422]
    assert log_in(server, "edith").status_code == 401
    assert log_in(server, "edith", "another horse battery").status_code == 200
    assert token not in server.log.read_text()


def test_revoke_all_ends_everybodys_session_at_the_server_beside(server: Server):
    sessions = []
    for name in ("mary", "joan"):
        sessionapi(server, "users", "add", name, given=TYPED)
        sessions.append(log_in(server, name).json())
    assert int(sessionapi(server, "sessions", "revoke", "--all")) >= 2
    for each in sessions:
        answer = httpx.post(f"{server.url}/refresh", json={"refresh_token": each["refresh_token"]})
        assert (answer.status_code, answer.json()["reason"]) == (401, "revoked_by_admin")


def talk(data: Path, *arguments: str, answers: tuple[tuple[str, str], ...] = ()) -> tuple[int, str]:
    """Run a command on a terminal and type a line after each prompt; return its status and its output.

    The space after a prompt is written once the terminal no longer discards typed input.
    """
    ours, its = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "sessionapi", *arguments],
        env=environment(data),
        cwd=data.parent,
        stdin=its,
        stdout=its,
        stderr=its,
        start_new_session=True,
    )
    os.close(its)
    said, seen = "", 0
    try:
        for prompt, answer in answers:
            while prompt not in said[seen:]:
                said += os.read(ours, 4096).decode()
            seen = len(said)
            os.write(ours, answer.encode() + b"\n")
        while more := _read(ours):
            said += more
    finally:
        os.close(ours)
    return process.wait(30), said


def _read(terminal: int) -> str:
    try:
        return os.read(terminal, 4096).decode()
    except OSError:  # the other end is closed, so the process has ended
        return ""


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
