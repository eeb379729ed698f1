"""Sessions that end by themselves, exact to the second. No token is valid for longer."""

import jwt
import pytest

from tests.support.api_client import refusal
from tests.support.app import Running

DAY = 86_400
IDLE = (401, "session_expired", "idle")
ABSOLUTE = (401, "session_expired", "absolute")


@pytest.mark.parametrize(("remember", "idle"), [(True, 7 * DAY), (False, 12 * 3600)])
@pytest.mark.requirement("ASVS 7.3.1, .2")
async def test_a_session_that_nobody_uses_ends_at_its_idle_timeout(service: Running, remember, idle):
    """Fails without the comparison with ends_at in policy.ended."""
    tokens = await service.sign_up(remember=remember)
    service.clock.move(idle - 0.001)
    renewed = await service.refresh(tokens, active=False)
    assert renewed.status_code == 200
    service.clock.move(0.001)
    assert refusal(await service.refresh(renewed.json())) == IDLE


@pytest.mark.parametrize(("remember", "lifetime", "step"), [(True, 30 * DAY, DAY), (False, DAY, 3600)])
@pytest.mark.requirement("ASVS 7.3.1, .2")
async def test_a_session_in_use_ends_at_its_absolute_end(service: Running, remember, lifetime, step):
    """Fails without expires_at in Session.ends_at."""
    tokens = await service.sign_up(remember=remember)
    for _ in range(lifetime // step - 1):
        service.clock.move(step)
        tokens = (await service.refresh(tokens)).json()
    service.clock.move(step - 0.001)
    tokens = (await service.refresh(tokens)).json()
    service.clock.move(0.001)
    assert refusal(await service.refresh(tokens)) == ABSOLUTE
    assert refusal(await service.get("/protected", tokens))[1] in ("expired_token", "session_expired")


async def test_renewing_while_nobody_is_there_lets_the_session_run_into_its_idle_end(service: Running):
    """Fails if a refresh with active: false moves last_seen_at."""
    tokens = await service.sign_up(remember=False)
    for _ in range(12 * 12 - 1):
        service.clock.move(300)
        tokens = (await service.refresh(tokens, active=False)).json()
    service.clock.move(300)
    assert refusal(await service.refresh(tokens, active=False)) == IDLE


async def test_one_active_refresh_in_between_moves_the_idle_end(service: Running):
    tokens = await service.sign_up(remember=False)
    service.clock.move(11 * 3600)
    tokens = (await service.refresh(tokens, active=True)).json()
    service.clock.move(11 * 3600)
    assert (await service.refresh(tokens, active=False)).status_code == 200


async def test_even_a_repeat_that_is_active_moves_the_idle_end(service: Running):
    """Fails without moves_idle_clock in the repeat of policy.decide."""
    tokens = await service.sign_up(remember=False)
    service.clock.move(11 * 3600)
    following = (await service.refresh(tokens, active=False)).json()
    assert following["generation"] == 1
    assert (await service.refresh(tokens, active=True)).json()["generation"] == 1
    service.clock.move(2 * 3600)
    assert (await service.refresh(following, active=False)).status_code == 200


@pytest.mark.parametrize("left", [59, 30, 1])
@pytest.mark.requirement("ASVS 7.3.1, .2")
async def test_no_access_token_outlives_the_idle_or_the_absolute_end(service: Running, left):
    """Fails without the min() in issuer.access_token_expiry."""
    tokens = await service.sign_up(remember=False)
    service.clock.move(12 * 3600 - left)
    near = (await service.refresh(tokens, active=False)).json()
    claims = jwt.decode(near["access_token"], options={"verify_signature": False})
    assert near["expires_in"] == near["session_expires_in"] == claims["exp"] - claims["iat"] == left
    seen = (await service.refresh(tokens, active=True)).json()
    assert (seen["expires_in"], seen["session_expires_in"]) == (60, 12 * 3600)
    service.clock.move(12 * 3600 - 1)
    seen = (await service.refresh(seen, active=True)).json()
    assert seen["session_expires_in"] == left + 1
    assert seen["expires_in"] == min(60, left + 1)
