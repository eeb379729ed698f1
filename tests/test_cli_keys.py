"""`sessionapi keys` and `sessionapi service-tokens`, while the service runs."""

import json
from collections.abc import AsyncIterator

import jwt
import pytest

from sessionapi.clock import system_clock
from tests.support.api_client import refusal
from tests.support.app import Running, running
from tests.support.clock import FakeClock
from tests.support.commands import Commands


@pytest.fixture
async def beside(commands: Commands, make_settings) -> AsyncIterator[Running]:
    """The app in this process, on the folder of the commands. Its clock starts at the time of theirs."""
    async with running(make_settings(), FakeClock(system_clock())) as it:
        yield it


async def ring(commands: Commands) -> dict[str, str]:
    """Return the states by kid, the oldest key first."""
    done = await commands.beside("keys", "list", "--json")
    return {key["kid"]: key["state"] for key in map(json.loads, done.stdout.splitlines())}


async def introspected(service: Running, token: str, service_token: str) -> dict:
    headers = {"Authorization": f"Bearer {service_token}"}
    return (await service.client.post("/introspect", data={"token": token}, headers=headers)).json()


async def test_keys_are_listed_without_what_is_private(commands: Commands, beside: Running):
    tokens = await beside.sign_up()
    kid = jwt.get_unverified_header(tokens["access_token"])["kid"]
    done = await commands.beside("keys", "list", "--json")
    assert set(json.loads(done.stdout)) == {"kid", "algorithm", "state", "created_at", "state_since"}
    assert await ring(commands) == {kid: "active"}
    assert kid in (await commands.beside("keys", "list")).stdout


async def test_a_rotation_is_published_first_and_waited_for(
    commands: Commands, beside: Running, monkeypatch: pytest.MonkeyPatch
):
    """Fails if `_rotate` promotes early: the new key would sign before it was published for a second."""
    monkeypatch.setenv("SESSIONAPI_JWKS_MAX_AGE", "1")
    monkeypatch.setenv("SESSIONAPI_REVOCATION_POLL", "0.45")
    (old,) = await ring(commands)
    began = system_clock()
    done = await commands.beside("keys", "rotate")
    assert (system_clock() - began).total_seconds() >= 1.9
    new = done.stdout.strip()
    assert f"Published {new}. It starts signing in 2 s" in done.stderr
    assert await ring(commands) == {old: "retired", new: "active"}


async def test_a_rotation_in_an_emergency_does_not_wait(commands: Commands, beside: Running):
    (old,) = await ring(commands)
    new = (await commands.beside("keys", "rotate", "--now")).stdout.strip()
    assert await ring(commands) == {old: "retired", new: "active"}


async def test_a_dropped_keys_tokens_are_refused(commands: Commands, beside: Running):
    """Fails without the condition on dropped keys in KeyRing.replace."""
    tokens = await beside.sign_up()
    (leaked,) = await ring(commands)
    assert (await commands.beside("keys", "drop", leaked)).exit_code == 0
    assert list((await ring(commands)).values()) == ["dropped", "active"]
    await beside.container.state_sync.sync()
    assert refusal(await beside.get("/protected", tokens))[:2] == (401, "invalid_token")
    renewed = (await beside.refresh(tokens)).json()
    assert (await beside.get("/protected", renewed)).status_code == 200


def test_what_is_no_key_of_the_ring_is_not_dropped(commands: Commands):
    commands("keys", "list")
    for kid in ("key_01h455vb4pex5vsknk084sn02q", "nonsense"):
        assert commands.refused("keys", "drop", kid).startswith(f"There is no key {kid}")


def test_a_new_server_secret_takes_the_keys_over(commands: Commands, monkeypatch: pytest.MonkeyPatch):
    old, new = "the old server secret of more than 32 bytes", "the new server secret of more than 32 bytes"
    monkeypatch.setenv("SESSIONAPI_SECRET", old)
    commands("keys", "list")
    monkeypatch.setenv("SESSIONAPI_SECRET", new)
    assert "does not open the key ring" in commands.refused("keys", "reencrypt")
    monkeypatch.setenv("SESSIONAPI_SECRET_ACCEPTED", old)
    assert commands("keys", "reencrypt").stdout == "1\n"
    monkeypatch.delenv("SESSIONAPI_SECRET_ACCEPTED")
    assert commands("keys", "list").exit_code == 0


async def test_a_service_token_opens_introspection_until_it_is_revoked(commands: Commands, beside: Running):
    tokens = await beside.sign_up()
    made = await commands.beside("service-tokens", "add", "orders")
    credential = made.stdout.strip()
    assert "not shown again" in made.stderr
    assert (await introspected(beside, tokens["access_token"], credential))["active"] is True
    listed = await commands.beside("service-tokens", "list", "--json")
    assert credential not in listed.stdout
    assert set(json.loads(listed.stdout)) == {"name", "created_at", "revoked_at"}
    assert (await commands.beside("service-tokens", "revoke", "orders")).exit_code == 0
    assert (await introspected(beside, tokens["access_token"], credential))["code"] == "invalid_token"
    kinds = beside.rows("select kind from events where kind like 'service_token.%' order by id")
    assert kinds == [("service_token.added",), ("service_token.revoked",)]


def test_a_name_belongs_to_one_living_service_token(commands: Commands):
    first = commands("service-tokens", "add", "orders").stdout
    assert "active service token named 'orders'" in commands.refused("service-tokens", "add", "orders")
    commands("service-tokens", "revoke", "orders")
    assert "no active service token" in commands.refused("service-tokens", "revoke", "orders")
    assert commands("service-tokens", "add", "orders").stdout != first


@pytest.mark.parametrize("name", ["", " x", "x" * 101, "a\nb"])
def test_a_service_tokens_name_can_be_read(commands: Commands, name):
    assert "1 to 100 printable characters" in commands.refused("service-tokens", "add", name)
