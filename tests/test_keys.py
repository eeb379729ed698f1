"""The key ring: states, rotation by hand and by age, dropping, resealing, and agreement between processes."""

import asyncio
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from sessionapi import ids
from sessionapi.errors import NotFound, StartupError
from tests.support.api_client import refusal
from tests.support.app import Running, running

INVALID = (401, "invalid_token", None)


async def states(service: Running) -> list[str]:
    return [key.state for key in await service.container.keys.all()]


async def published(service: Running) -> list[str]:
    return [key["kid"] for key in (await service.client.get("/.well-known/jwks.json")).json()["keys"]]


def kid_of(tokens: dict) -> str:
    return jwt.get_unverified_header(tokens["access_token"])["kid"]


KEY_EVENTS = "select kind from events where kind like 'key.%' order by at"


async def test_a_next_key_is_published_before_it_signs(service: Running):
    """Fails if promote doesn't check due_at."""
    keys = service.container.keys
    before = await service.sign_up()
    made = await keys.publish()
    assert (await keys.publish()).id == made.id
    await keys.load()
    assert await published(service) == [kid_of(before), ids.public("key", made.id)]
    assert kid_of(await service.log_in()) == kid_of(before)
    service.clock.move(300)
    assert await keys.promote() is None
    service.clock.move(1)
    assert await keys.promote()
    await keys.load()
    after = await service.log_in()
    assert kid_of(after) == ids.public("key", made.id)
    assert await states(service) == ["retired", "active"]
    assert [kind for (kind,) in service.rows(KEY_EVENTS)] == [
        "key.published",
        "key.activated",
    ]


async def test_tokens_of_a_retired_key_live_to_their_end_and_then_the_key_goes(service: Running):
    before = await service.sign_up()
    await service.container.keys.rotate_now()
    await service.container.keys.load()
    assert (await service.get("/protected", before)).status_code == 200
    service.clock.move(315)
    await service.container.keys.keep_up()
    assert await states(service) == ["retired", "active"]
    service.clock.move(1)
    await service.container.keys.keep_up()
    assert await states(service) == ["active"]


async def test_keys_are_rotated_by_age_and_a_rotation_that_was_begun_is_finished(service: Running):
    keys = service.container.keys
    await keys.keep_up()
    assert await states(service) == ["active"]
    service.clock.now += timedelta(days=90) - timedelta(seconds=301)
    await keys.keep_up()
    assert await states(service) == ["active", "next"]
    service.clock.move(301)
    await keys.keep_up()
    assert await states(service) == ["retired", "active"]


async def test_tokens_of_a_dropped_key_are_refused_at_once(service: Running):
    """Fails without `key.state != "dropped"` in Keys.take, or without the check of the ring in TokenCache."""
    before = await service.sign_up()
    assert (await service.get("/protected", before)).status_code == 200
    await service.container.keys.drop(kid_of(before))
    await service.container.state_sync.sync()
    assert refusal(await service.get("/protected", before)) == INVALID
    assert (await service.get("/protected", await service.log_in())).status_code == 200
    assert await states(service) == ["dropped", "active"]
    assert service.rows("select private_key from signing_keys where state = 'dropped'") == [(b"",)]
    for kid in (kid_of(before), "nonsense", ids.public("key", ids.new_id())):
        with pytest.raises(NotFound):
            await service.container.keys.drop(kid)


async def test_dropping_the_active_key_lets_the_next_one_sign(service: Running):
    made = await service.container.keys.publish()
    await service.container.keys.drop(service.container.ring.active.kid)
    await service.container.keys.load()
    assert service.container.ring.active.id == made.id


async def test_processes_that_rotate_at_once_make_one_change(make_settings, clock):
    async with running(make_settings(), clock) as one, running(make_settings(), clock) as two:
        await asyncio.gather(*(each.container.keys.publish() for each in (one, two, one, two)))
        assert await states(one) == ["active", "next"]
        clock.move(301)
        done = await asyncio.gather(*(each.container.keys.promote() for each in (one, two, one, two)))
        assert len([each for each in done if each]) == 1
        assert await states(two) == ["retired", "active"]


async def test_another_process_takes_a_good_token_of_a_key_that_it_has_not_seen(make_settings, clock):
    """Fails without Authenticator._look_for."""
    async with running(make_settings(), clock) as one, running(make_settings(), clock) as two:
        await one.sign_up()
        await one.container.keys.rotate_now()
        await one.container.keys.load()
        tokens = await one.log_in()
        assert (await two.get("/protected", tokens)).status_code == 200


@pytest.mark.engines("sqlite")
async def test_a_private_key_can_not_be_read_from_the_database(service: Running):
    """Fails without the encryption in keyring.seal."""
    await service.sign_up()
    private = service.container.ring.active.private_key
    number = private.private_numbers().private_value.to_bytes(32, "big")
    der = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    folder = service.container.settings.data_dir
    content = b"".join(path.read_bytes() for path in folder.glob("sessionapi.db*"))
    assert service.container.ring.active.kid.encode() in content
    assert b"P-256" in content
    for secret in (number, der, number.hex().encode()):
        assert secret not in content


async def test_a_server_secret_changes_on_two_hosts_one_after_the_other(make_settings, clock):
    """The new secret is first accepted everywhere, then the present one everywhere.

    After that the keys are resealed, and the old secret is removed.
    """
    old, new = "an old server secret of more than 32 bytes", "a new server secret of more than 32 bytes"
    coming = make_settings(secret=old, secret_accepted=(new,))
    going = make_settings(secret=new, secret_accepted=(old,))
    steps = [(make_settings(secret=old), coming), (coming, going), (going, going)]
    tokens = None
    for first, second in steps:
        async with running(first, clock) as one, running(second, clock) as two:
            tokens = tokens or await one.sign_up()
            for host in (two, one):
                clock.move(600)
                answer = await host.refresh(tokens)
                assert answer.status_code == 200
                tokens = answer.json()
                assert (await host.get("/protected", tokens)).status_code == 200
    async with running(going, clock) as one:
        assert await one.container.keys.reencrypt() == 1
    async with running(make_settings(secret=new), clock) as one:
        assert (await one.refresh(tokens)).status_code == 200
    with pytest.raises(StartupError, match="does not open the key ring"):
        async with running(make_settings(secret=old), clock):
            pass
