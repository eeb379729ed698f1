"""ASVS 6, NIST SP 800-63B-4, the OWASP Password Storage and Authentication cheat sheets."""

import asyncio
import contextlib
import os
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from argon2 import extract_parameters
from passlib.hash import bcrypt

from sessionapi.sessions.actors import OPERATOR
from sessionapi.settings import Settings
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running, running
from tests.support.clock import FakeClock

WRONG = "wrong horse battery"
NEW = "another horse battery"


def hashes(service: Running) -> float:
    return service.container.metrics.hashes._value.get()


def rules(answer: httpx.Response) -> set[str]:
    assert refusal(answer)[:2] == (422, "weak_password")
    return {error["code"] for error in answer.json()["errors"]}


async def sign_up(service: Running, password: str, name: str = "countess") -> httpx.Response:
    return await service.client.post("/signup", json={"username": name, "password": password})


async def guess(client: httpx.AsyncClient, password: str = WRONG, name: str = "ada") -> httpx.Response:
    return await client.post("/login", json={"username": name, "password": password})


@contextlib.asynccontextmanager
async def under_attack(
    make_settings: Callable[..., Settings], clock: FakeClock
) -> AsyncIterator[tuple[Running, list[httpx.AsyncClient]]]:
    """The app with its counters on, and clients at fifty IP addresses."""
    settings = make_settings(
        throttle=True,
        login_per_address=100_000,
        signup_per_address=1000,
        password_checks_per_user=100_000,
        hash_threads=16,
    )
    async with running(settings, clock) as service, contextlib.AsyncExitStack() as stack:
        app = service.client._transport.app
        strangers = [
            await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=httpx.ASGITransport(app=app, client=(f"198.51.100.{number}", 50_000)),
                    base_url="http://localhost:8000",
                )
            )
            for number in range(50)
        ]
        yield service, strangers


@pytest.mark.requirement("ASVS 6.2.1, .9")
async def test_passwords_have_8_to_256_characters(service: Running):
    """Fails without the minimum in password_policy, max_length in schemas or MAX_BODY in web/json_io."""
    before = hashes(service)
    assert rules(await sign_up(service, "7 signs")) == {"too_short"}
    assert refusal(await sign_up(service, "x" * 257))[:2] == (422, "validation_failed")
    assert refusal(await sign_up(service, "x" * 2_000_000))[:2] == (413, "payload_too_large")
    assert hashes(service) == before
    assert (await sign_up(service, "8 signs!", "eight")).status_code == 201
    assert (await sign_up(service, "x" * 256, "many")).status_code == 201


@pytest.mark.parametrize(
    ("password", "rule"),
    [
        ("password123", "too_common"),
        ("the countess 1843", "contains_username"),
        ("Sessionapi-2026", "contains_product"),
    ],
)
@pytest.mark.requirement("ASVS 6.2.4, .11")
async def test_common_passwords_and_names_are_refused(service: Running, password: str, rule: str):
    """Fails without the line of its rule in PasswordRules._broken."""
    answer = await sign_up(service, password)
    assert rule in rules(answer)
    assert all(len(error["message"]) > 20 for error in answer.json()["errors"])


@pytest.mark.parametrize("password", ["🐎🔋📎✨🐎🔋📎✨", "  spaces around  ", "пароль от всего", "x" * 80])
@pytest.mark.requirement("ASVS 6.2.5, .8")
async def test_any_characters_are_verified_exactly_as_received(service: Running, password: str):
    """Fails if a password is folded, trimmed or cut before its hash."""
    assert (await sign_up(service, password)).status_code == 201
    assert (await guess(service.client, password, "countess")).status_code == 200
    for other in (password[:-1], password + " ", f" {password}"):
        assert refusal(await guess(service.client, other, "countess"))[1] == "invalid_credentials"


@pytest.mark.requirement("ASVS 6.2.5, .8")
async def test_nul_is_refused_or_kept_and_never_cuts(service: Running):
    answer = await sign_up(service, "nothing\0after this")
    assert answer.status_code in (201, 422)
    assert (await guess(service.client, "nothing", "countess")).status_code == 401


@pytest.mark.requirement("ASVS 6.2.5, .8")
async def test_an_imported_bcrypt_hash_knows_80_letters_from_79(service: Running):
    """bcrypt cut passwords at 72 bytes, so the first login does the same, and hashes the whole password."""
    await service.container.accounts.add(
        "old", None, password=None, hashed=bcrypt.using(rounds=4).hash("x" * 72)
    )
    assert (await guess(service.client, "x" * 80, "old")).status_code == 200
    assert (await guess(service.client, "x" * 79, "old")).status_code == 401


NFC, NFD = "Zażółć gęślą jaźń", unicodedata.normalize("NFD", "Zażółć gęślą jaźń")
MIXED = NFC[:8] + unicodedata.normalize("NFD", NFC[8:])


@pytest.mark.parametrize("received", [NFC, NFD, MIXED], ids=["NFC", "NFD", "mixed"])
@pytest.mark.requirement("ASVS 6.2.5, .8")
async def test_a_password_is_verified_as_received_then_in_nfc_then_in_nfd(service: Running, received: str):
    """Fails without `spellings` in Passwords.verify: macOS and Linux encode one accent in two ways."""
    tokens = (await sign_up(service, received)).json()
    also = [] if received == MIXED else [NFC, NFD, MIXED]
    for typed in (received, *also):
        before = hashes(service)
        assert (await guess(service.client, typed, "countess")).status_code == 200
        assert hashes(service) - before <= 3
        body = {"password": typed}
        again = await service.send("POST", "/sessions/current/reauthenticate", tokens, body)
        assert again.status_code == 200
        tokens = {**tokens, **again.json()}
    for other in (NFC.swapcase(), NFC + " ", NFC[:-1], unicodedata.normalize("NFKD", NFC + "ﬁ")):
        assert refusal(await guess(service.client, other, "countess"))[1] == "invalid_credentials"


@pytest.mark.requirement("ASVS 6.2.1, .9")
async def test_a_letter_with_a_mark_counts_once(service: Running):
    """Fails without `identifiers.length`: four characters in NFD passed, and 256 in NFD were refused."""
    four, long = unicodedata.normalize("NFD", "żóćę"), "ż" * 256
    assert rules(await sign_up(service, four)) == {"too_short"}
    assert (await sign_up(service, long)).status_code == 201
    decomposed = unicodedata.normalize("NFD", long)
    assert (await guess(service.client, decomposed, "countess")).status_code == 200
    assert refusal(await guess(service.client, "ż" * 257, "countess"))[:2] == (422, "validation_failed")
    assert refusal(await guess(service.client, "\u0301" * 30_000, "countess"))[0] == 422


@pytest.mark.requirement("ASVS 6.2.4, .11")
async def test_a_name_is_found_in_any_composition(service: Running):
    """Fails without NFKC in password_policy._fold."""
    for name, password in (("błędów", "no błędów here"), ("żółćże", "my ŻÓŁĆŻE horse")):
        for form in ("NFC", "NFD", "NFKD"):
            answer = await sign_up(service, unicodedata.normalize(form, password), name)
            assert rules(answer) == {"contains_username"}


@pytest.mark.requirement("ASVS 6.2.2, .3, 7.4.3")
async def test_a_change_needs_the_password_and_ends_the_others(service: Running):
    """Fails without `verify` or `revoke_all` in Users.change_password."""
    tokens, other = await service.sign_up(), await service.log_in()
    wrong = {"current_password": WRONG, "new_password": NEW}
    answer = await service.send("POST", "/me/password", tokens, wrong)
    assert refusal(answer)[:2] == (401, "invalid_credentials")
    fresh = await service.send("POST", "/me/password", tokens, {**wrong, "current_password": PASSWORD})
    assert fresh.status_code == 200
    assert (await service.get("/protected", fresh.json())).status_code == 200
    assert refusal(await service.get("/protected", other)) == (401, "session_revoked", "password_changed")
    assert refusal(await service.refresh(tokens))[1] == "invalid_refresh_token", "the session's secret is new"


@pytest.mark.requirement("ASVS 6.2.2, .3, 7.4.3")
async def test_no_session_is_born_of_a_password_that_has_just_been_changed(service: Running):
    """Fails without `credential_version` in the condition with which a login locks its user."""
    tokens, old = await service.sign_up(), PASSWORD
    for round_ in range(30):
        new = f"{NEW} {round_}"
        change = {"current_password": old, "new_password": new}
        login, changed = await asyncio.gather(
            guess(service.client, old), service.send("POST", "/me/password", tokens, change)
        )
        tokens, old = changed.json(), new
        if login.status_code == 200:
            assert (await service.get("/protected", login.json())).status_code == 401
    assert len((await service.get("/sessions", tokens)).json()["items"]) == 1


EACH = 20 if "SESSIONAPI_PROVE" in os.environ else 5
"""Guesses from each of fifty addresses at once, for two names; on a quiet machine there are 2,000."""


@pytest.mark.prove
@pytest.mark.requirement("ASVS 6.3.1, NIST SP 800-63B-4")
async def test_of_2000_parallel_guesses_none_is_one_too_many(make_settings, clock):
    """Fails if an attempt is counted after its hash, or read and then written, for any name."""
    async with under_attack(make_settings, clock) as (service, strangers):
        await service.sign_up()
        for name in ("ada", "nobody"):
            before = hashes(service)
            answers = await asyncio.gather(*(guess(client, name=name) for client in strangers * EACH))
            refused = EACH * len(strangers) - 100
            assert Counter(answer.status_code for answer in answers) == {401: 100, 429: refused}
            assert hashes(service) - before == 100


@pytest.mark.parametrize("path", ["/me/password", "/sessions/current/reauthenticate"])
@pytest.mark.requirement("ASVS 6.3.1, NIST SP 800-63B-4")
async def test_every_route_that_takes_a_password_is_throttled(make_settings, clock, path: str):
    """Fails without `reserve_in_session` on that route."""
    async with under_attack(make_settings, clock) as (service, _):
        tokens = await service.sign_up()
        body = {"password": WRONG} if path.endswith("reauthenticate") else {}
        body = body or {"current_password": WRONG, "new_password": NEW}
        answers = await asyncio.gather(*(service.send("POST", path, tokens, body) for _ in range(40)))
        assert Counter(answer.status_code for answer in answers) == {401: 10, 429: 30}
        assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 429)


@pytest.mark.requirement("OWASP, device cookies")
async def test_a_stranger_locks_nobody_out_of_a_known_device(make_settings, clock):
    """Fails without the device's counter in Throttle.reserve_login. The cookie alone opens nothing."""
    async with under_attack(make_settings, clock) as (service, strangers):
        device = {"device_token": (await service.sign_up())["device_token"]}
        for client in strangers * 3:
            await guess(client)
        assert (await guess(strangers[0], PASSWORD)).status_code == 429
        before = hashes(service)
        known = await strangers[1].post("/login", json={"username": "ada", "password": PASSWORD, **device})
        assert known.status_code == 200
        tried = [
            (await strangers[2].post("/login", json={"username": "ada", "password": WRONG, **device}))
            for _ in range(12)
        ]
        assert Counter(answer.status_code for answer in tried) == {401: 10, 429: 2}
        assert hashes(service) - before == 11
        assert refusal(await service.get("/protected", device["device_token"]))[0] == 401
        assert refusal(await service.refresh(device["device_token"]))[0] == 401


@pytest.mark.parametrize("password", [NFC, NFD, MIXED, PASSWORD], ids=["NFC", "NFD", "mixed", "ASCII"])
@pytest.mark.requirement("ASVS 6.3.8")
async def test_a_password_in_several_forms_costs_the_same_whoever_it_is_tried_for(
    service: Running, password: str
):
    """Fails without the dummy hash for each form, or if the right password of a disabled user is verified."""
    for name in ("disabled", "other"):
        await service.sign_up(name, password if name == "disabled" else WRONG)
    await service.container.accounts.disable((await service.container.accounts.find("disabled")).id, OPERATOR)
    costs = []
    for name in ("nobody", "other", "disabled"):
        before = hashes(service)
        assert refusal(await guess(service.client, password, name))[:2] == (401, "invalid_credentials")
        costs.append(hashes(service) - before)
    forms = {password, *(unicodedata.normalize(form, password) for form in ("NFC", "NFD"))}
    assert costs == [len(forms)] * 3


@pytest.mark.requirement("ASVS 6.3.1, NIST SP 800-63B-4")
async def test_a_password_in_several_forms_is_one_attempt(make_settings, clock):
    """Fails if each form of the password is counted as a separate attempt."""
    async with under_attack(make_settings, clock) as (service, strangers):
        await service.sign_up("ada", NFC)
        answers = [await guess(strangers[0], MIXED + "!") for _ in range(11)]
        assert Counter(answer.status_code for answer in answers) == {401: 10, 429: 1}


@pytest.mark.requirement("OWASP Password Storage")
async def test_hashes_are_argon2id_and_weaker_ones_are_upgraded(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails with weaker defaults in settings.py, or without the upgrade in Users.log_in."""
    defaults = Settings.model_fields
    strong = {name: defaults[name].default for name in ("hash_memory_kib", "hash_time")}
    async with running(make_settings(**strong), clock) as service:
        await service.container.accounts.add(
            "old", None, password=None, hashed=bcrypt.using(rounds=4).hash(PASSWORD)
        )
        await service.log_in("old")
        ((stored,),) = service.rows("select password_hash from users")
        found = extract_parameters(stored)
        assert (found.type.name, found.parallelism) == ("ID", 1)
        assert found.memory_cost >= 19 * 1024
        assert found.time_cost >= 2
        await service.log_in("old")
