"""A known device: what a login stores there, how it keeps its owner in, and that it opens nothing."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from sessionapi.settings import Settings
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running, running
from tests.support.clock import FakeClock

pytestmark = pytest.mark.engines("sqlite")  # nothing here depends on the database

WRONG = "wrong horse battery"
ORIGIN = {"Origin": "http://localhost:8000"}


@pytest.fixture
async def service(make_settings: Callable[..., Settings], clock: FakeClock) -> AsyncIterator[Running]:
    few = {"login_per_address": 1000, "login_failures": 3, "account_failures": 10}
    async with running(make_settings(throttle=True, **few), clock) as it:
        yield it


def login(service: Running, password: str = PASSWORD, **more: Any) -> dict[str, Any]:
    return {"username": "ada", "password": password, **more}


async def statuses(service: Running, times: int, **more: Any) -> list[int]:
    answers = [await service.client.post("/login", json=login(service, WRONG, **more)) for _ in range(times)]
    return [answer.status_code for answer in answers]


def cookies(answer: httpx.Response) -> dict[str, tuple[str, set[str]]]:
    """Return the cookies that a response sets, with their attributes."""
    found = {}
    for line in answer.headers.get_list("set-cookie"):
        pair, *attributes = line.split("; ")
        name, _, value = pair.partition("=")
        found[name] = value, {each.lower() for each in attributes}
    return found


@pytest.mark.parametrize("path", ["/signup", "/login"])
async def test_a_login_by_cookie_leaves_a_device_cookie_for_a_year(service: Running, path: str):
    """Fails without `set_device` in token_response."""
    if path == "/login":
        await service.sign_up()
    answer = await service.client.post(path, json=login(service, transport="cookie"), headers=ORIGIN)
    value, attributes = cookies(answer)["__Host-device"]
    assert value.startswith("dt_")
    assert attributes == {"httponly", "secure", "samesite=lax", "path=/", "max-age=31536000"}
    assert "device_token" not in answer.json()


async def test_on_a_shared_computer_the_cookie_goes_with_the_browser(service: Running):
    body = login(service, transport="cookie", remember=False)
    answer = await service.client.post("/signup", json=body, headers=ORIGIN)
    assert cookies(answer)["__Host-device"][1] == {"httponly", "secure", "samesite=lax", "path=/"}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "__Host-device"),
        ({"cookie_name": "staging"}, "__Host-staging-device"),
        ({"cookie_secure": False}, "sessionapi-device"),
    ],
)
async def test_the_cookie_is_named_after_the_environment(
    make_settings: Callable[..., Settings], clock: FakeClock, settings: dict[str, Any], name: str
):
    async with running(make_settings(**settings), clock) as service:
        answer = await service.client.post("/signup", json=login(service, transport="cookie"), headers=ORIGIN)
        assert name in cookies(answer)


async def test_the_cookie_outlives_a_logout_and_names_the_same_device_again(service: Running):
    """Fails without `known` in DeviceTokens.issue."""
    secure = httpx.AsyncClient(transport=service.client._transport, base_url="https://localhost:8000")
    await secure.post("/signup", json=login(service, transport="cookie"), headers=ORIGIN)
    first = secure.cookies["__Host-device"]
    assert (await secure.post("/logout", headers=ORIGIN)).status_code == 204
    assert "__Host-session" not in secure.cookies
    await secure.post("/login", json=login(service, transport="cookie"), headers=ORIGIN)
    assert secure.cookies["__Host-device"] == first


async def test_a_stranger_cannot_lock_the_owner_out_of_a_known_device(service: Running):
    """Fails without the device in Throttle.reserve_login."""
    mine = (await service.sign_up())["device_token"]
    assert await statuses(service, 5) == [401] * 3 + [429] * 2
    assert (await service.client.post("/login", json=login(service))).status_code == 429
    for sent in ({"json": login(service, device_token=mine)}, _by_cookie(service, mine)):
        assert (await service.client.post("/login", **sent)).status_code == 200


async def test_a_known_device_has_tries_of_its_own(service: Running):
    """Fails without `for_device` in limits. The cookie skips no check of the password."""
    mine = (await service.sign_up())["device_token"]
    assert await statuses(service, 5, device_token=mine) == [401] * 3 + [429] * 2
    answer = await service.client.post("/login", json=login(service, device_token=mine))
    assert answer.status_code == 429
    other = (await service.log_in())["device_token"]
    assert other != mine
    assert (await service.client.post("/login", json=login(service, device_token=other))).status_code == 200
    service.clock.move(600)
    assert (await service.client.post("/login", json=login(service, device_token=mine))).status_code == 200


async def test_a_stolen_device_token_buys_a_bounded_number_of_tries(service: Running):
    """Fails without the counter of consecutive failures of a device. An administrator unlocks it."""
    mine = (await service.sign_up())["device_token"]
    tried = []
    for _ in range(6):
        tried += await statuses(service, 3, device_token=mine)
        service.clock.move(600)
    assert tried.count(401) == 10
    assert (await service.client.post("/login", json=login(service))).status_code == 200
    kinds = dict(service.rows("select kind, details from events where kind = 'user.locked_out'"))
    assert kinds == {"user.locked_out": '{"on": "device"}'}


@pytest.mark.parametrize("name", ["ada", "nobody"])
async def test_a_device_token_with_a_strange_letter_is_none_for_everybody(service: Running, name: str):
    """Fails without the `except` in device_token: it was a 500, and only for names that exist."""
    await service.sign_up()
    broken = {**login(service, WRONG, device_token=f"dt_{'A' * 86}!"), "username": name}
    answer = await service.client.post("/login", json=broken)
    assert refusal(answer) == (401, "invalid_credentials", None)


async def test_a_device_token_opens_nothing(service: Running):
    mine = (await service.sign_up())["device_token"]
    as_bearer = await service.client.get("/protected", headers={"Authorization": f"Bearer {mine}"})
    assert as_bearer.status_code == 401
    assert (await service.client.post("/refresh", json={"refresh_token": mine})).status_code == 401


async def test_another_users_or_a_forged_device_token_counts_as_none(service: Running):
    """Fails without the check of the owner in DeviceTokens.read, or of HMAC or spelling in TokenFormat."""
    mine = (await service.sign_up())["device_token"]
    eves = (await service.sign_up("eve"))["device_token"]
    raw = bytearray(urlsafe_b64decode(mine[3:] + "="))
    raw[40] ^= 1
    other_version = bytes([2]) + urlsafe_b64decode(mine[3:] + "=")[1:]
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    respelt = mine[:-1] + last[last.index(mine[-1]) + 1]
    assert urlsafe_b64decode(respelt[3:] + "=") == urlsafe_b64decode(mine[3:] + "=")
    forged = ["dt_" + urlsafe_b64encode(bytes(each)).decode().rstrip("=") for each in (raw, other_version)]
    await statuses(service, 3)
    for token in (
        eves,
        *forged,
        respelt,
        mine[:-1],
        mine + "A",
        "",
        "dt_",
        "sr_" + mine[3:],
        "dt_" + "é" * 87,
    ):
        answer = await service.client.post("/login", json=login(service, device_token=token))
        assert answer.status_code == 429, token
    assert (await service.client.post("/login", json=login(service, device_token=mine))).status_code == 200


async def test_a_device_stays_known_when_the_server_secret_changes(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if only the present secret's key verifies. The next login sets a token of the present secret."""
    old, new = "an old server secret with more than 32 bytes", "a new server secret with more than 32 bytes"
    async with running(make_settings(secret=old, throttle=True), clock) as service:
        first = (await service.sign_up())["device_token"]
    async with running(make_settings(secret=new, secret_accepted=(old,), throttle=True), clock) as service:
        answer = await service.client.post("/login", json=login(service, device_token=first))
        second = answer.json()["device_token"]
    assert second != first
    assert second[:44] == first[:44], "the same user and device"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (ORIGIN, 200),
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_a_login_that_carries_the_cookie_follows_the_rule_for_cookies(
    service: Running, headers: dict[str, str], status: int
):
    """Fails if the cross-origin check looks for the session cookie alone."""
    sent = _by_cookie(service, (await service.sign_up())["device_token"])
    sent["headers"] = {**sent["headers"], **headers}
    answer = await service.client.post("/login", **sent)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["code"] == "csrf_rejected"


def _by_cookie(service: Running, token: str) -> dict[str, Any]:
    return {"json": login(service), "headers": {"Cookie": f"__Host-device={token}"}}
