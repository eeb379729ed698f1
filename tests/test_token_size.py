"""Roles and claims that would make an access token larger than an Authorization header are refused."""

import json
import math
import re
import subprocess
import sys

import httpx
import pytest

from sessionapi import ids
from sessionapi.errors import ValidationFailed
from sessionapi.sessions.actors import OPERATOR
from sessionapi.tokens import bearer as bearer_header
from sessionapi.verifier import Verifier
from tests.support.api_client import PASSWORD, bearer
from tests.support.app import Running
from tests.support.commands import Commands
from tests.support.server import Server, serving
from tests.support.settings import environment

ROLES = [f"{number:02}{'r' * 62}" for number in range(32)]
CLAIMS = {"of": "c" * 4085}
"""32 roles of 64 characters, and claims of 4,096 bytes: both are allowed alone."""


def run(server: Server, *arguments: str) -> str:
    """Run `sessionapi users` on the data of a server, and return the reason of a refusal."""
    done = subprocess.run(
        [sys.executable, "-m", "sessionapi", "users", *arguments],
        env=environment(server.data),
        cwd=server.data.parent,
        capture_output=True,
        text=True,
    )
    return done.stderr if done.returncode else ""


async def patched(service: Running, admin: dict, user: dict, body: dict) -> httpx.Response:
    return await service.send("PATCH", f"/admin/users/{user['user']['id']}", admin, body)


@pytest.mark.parametrize("last", ["roles", "claims", "both"])
async def test_roles_and_claims_that_are_too_large_together_are_refused_over_http(
    service: Running, last: str
):
    """Fails without `refuse_oversized`: all responses were 200, and each of the user's requests a 401."""
    user, admin = await service.sign_up(), await service.administrator()
    first = {"roles": {"claims": CLAIMS}, "claims": {"roles": ROLES}, "both": {}}[last]
    second = {
        "roles": {"roles": ROLES},
        "claims": {"claims": CLAIMS},
        "both": {"roles": ROLES, "claims": CLAIMS},
    }
    assert (await patched(service, admin, user, first)).status_code == 200
    answer = await patched(service, admin, user, second[last])
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    (error,) = answer.json()["errors"]
    assert error["code"] == "token_too_large"
    assert error["field"] == ("roles" if last == "roles" else "claims")
    assert f"At most {bearer_header.MAX_TOKEN} bytes" in error["message"]
    assert (await service.get("/protected", await service.log_in())).status_code == 200
    stored = (await service.get(f"/admin/users/{user['user']['id']}", admin)).json()
    assert (stored["roles"], stored["claims"]) == (first.get("roles", []), first.get("claims", {}))


def test_the_largest_token_that_may_be_set_is_accepted_by_the_server_and_the_verifier(tmp_path):
    """Fails if the bound is larger than a header of 8 KiB, with RS256, whose signatures are the longest."""
    with serving(tmp_path / "var", algorithm="RS256") as server:
        server.sign_up()
        assert run(server, "set-roles", "ada", *ROLES) == ""
        refused = run(server, "set-claims", "ada", json.dumps(CLAIMS))
        size = int(re.search(r"would have (\d+) bytes", refused)[1])
        fits = len(CLAIMS["of"]) - math.ceil((size - bearer_header.MAX_TOKEN) * 3 / 4)
        assert "too large" in run(server, "set-claims", "ada", json.dumps({"of": "c" * (fits + 2)}))
        assert run(server, "set-claims", "ada", json.dumps({"of": "c" * fits})) == ""
        tokens = server.log_in()
        size = len(tokens["access_token"])
        assert bearer_header.MAX_TOKEN - 2 <= size <= bearer_header.MAX_TOKEN
        assert httpx.get(f"{server.url}/protected", headers=bearer(tokens)).status_code == 200
        jwks = httpx.get(f"{server.url}/.well-known/jwks.json").json()
        header = [(b"authorization", b"Bearer " + tokens["access_token"].encode())]
        verified = Verifier("http://localhost:8000", jwks=jwks).verify(bearer_header.read(header))
        assert verified.roles == tuple(ROLES)


def test_the_command_line_says_which_is_too_large_and_what_the_bound_is(commands: Commands):
    """Fails without `refuse_oversized` in `users set-roles` and `users set-claims`."""
    commands("users", "add", "ada", given=PASSWORD)
    assert commands("users", "set-claims", "ada", json.dumps(CLAIMS)).exit_code == 0
    said = commands.refused("users", "set-roles", "ada", *ROLES)
    assert said.startswith("roles: The roles are too large: an access token would have ")
    assert f"At most {bearer_header.MAX_TOKEN} bytes fit" in said
    assert commands("users", "set-roles", "ada", *ROLES[:16]).exit_code == 0
    assert commands("users", "set-claims", "ada", "{}").exit_code == 0
    assert commands("users", "set-roles", "ada", *ROLES).exit_code == 0
    assert commands.refused("users", "set-claims", "ada", "-", given=json.dumps(CLAIMS)).startswith(
        "claims: "
    )


async def test_a_user_who_is_over_the_limit_already_is_logged_and_can_be_made_smaller(
    service: Running, capsys: pytest.CaptureFixture
):
    """Fails without the error in `Issuer._access_token`, or if a smaller token is refused."""
    user = await service.sign_up()
    user_id = ids.parse("user", user["user"]["id"])
    async with service.container.store.begin() as tx:  # stored by versions before this limit
        await tx.users.change(user_id, roles=[*ROLES[:31], "admin"], claims=CLAIMS)
    tokens = await service.log_in()
    assert (await service.get("/protected", tokens)).status_code == 401
    assert "access token too large" in "".join(capsys.readouterr())
    change = service.container.accounts.change
    with pytest.raises(ValidationFailed):
        await change(user_id, OPERATOR, {"roles": ROLES})
    assert (await change(user_id, OPERATOR, {"roles": ROLES[:31]})).roles == tuple(ROLES[:31])
    await change(user_id, OPERATOR, {"roles": []})
    assert (await service.get("/protected", await service.log_in())).status_code == 200


async def test_preferences_keep_their_own_limit(service: Running):
    tokens = await service.sign_up()
    answer = await service.send("PATCH", "/me", tokens, {"preferences": CLAIMS})
    assert answer.status_code == 200
    assert (await service.send("PATCH", "/me", tokens, {"preferences": {"b": 1}})).status_code == 422
