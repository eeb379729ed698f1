"""Logs, audit rows, metrics and error responses contain no secret, here and, by conftest.py, in any test."""

import pytest
import structlog

from tests.support.api_client import PASSWORD, bearer
from tests.support.app import Running
from tests.support.written import WRITTEN, Written


@pytest.mark.requirement("logs, errors")
async def test_nothing_that_is_written_holds_a_secret(service: Running):
    """Fails with a token, a password or a hash in a log call, a metric, an audit row or a problem."""
    tokens = await service.sign_up()
    for body in (
        {"username": "ada", "password": "wrong horse battery"},
        {"username": PASSWORD, "password": 7},
    ):
        await service.client.post("/login", json=body)
    await service.client.get("/protected", headers=bearer(tokens["refresh_token"]))
    await service.client.get("/protected", headers={"Authorization": f"Bearer {PASSWORD}"})
    await service.refresh(tokens["access_token"])
    await service.client.post("/password-reset", json={"token": "pr_" + "0" * 64, "new_password": PASSWORD})
    assert len(WRITTEN.texts) >= 5
    assert "wrong horse battery" in WRITTEN.passwords
    assert WRITTEN.leaks() == []


@pytest.mark.writes_secrets
@pytest.mark.requirement("logs, errors")
async def test_a_secret_that_is_written_is_found(service: Running, capsys: pytest.CaptureFixture):
    """The search at the end of every test finds each kind of secret."""
    tokens = await service.sign_up(password="a password of its own")
    ((hashed,),) = service.rows("select password_hash from users")
    for secret in (tokens["access_token"], tokens["refresh_token"], tokens["device_token"], hashed):
        structlog.get_logger().info("careless", about=secret)
        found = Written(texts=[("the log", capsys.readouterr().out)])
        assert len(found.leaks()) == 1
    assert WRITTEN.passwords == {"a password of its own"}
    assert Written(WRITTEN.passwords, [("an answer", "no, a password of its own!")]).leaks()
