"""Password guessing is throttled. The limits are exact, in parallel, across processes and restarts."""

import asyncio
import json
import os
import re
import ssl
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import httpx
import pytest
import sqlalchemy as sa

from sessionapi import ids
from sessionapi.metrics import Metrics
from sessionapi.sessions.actors import OPERATOR
from sessionapi.settings import Settings
from sessionapi.storage.tables import password_tries
from sessionapi.throttling import limits, rate_limiter
from sessionapi.throttling.limits import RateLimits
from sessionapi.throttling.rate_limiter import RateLimiter
from tests.support.api_client import PASSWORD, bearer
from tests.support.app import Running, running
from tests.support.clock import FakeClock
from tests.support.server import Server, serving
from tests.support.settings import SERVER_SECRET, environment

WRONG = "wrong horse battery"
GUESS = {"username": "ada", "password": WRONG}
NO_TLS = ssl.create_default_context()
"""One TLS context for all requests, because httpx would read all authorities again for each."""
PROVE = pytest.mark.skipif(os.environ.get("SESSIONAPI_PROVE") != "1", reason="runs with SESSIONAPI_PROVE=1")


@pytest.fixture
async def throttled(make_settings: Callable[..., Settings], clock: FakeClock) -> AsyncIterator[Running]:
    """The app with its default limits."""
    async with running(make_settings(throttle=True), clock) as it:
        yield it


@pytest.fixture
async def patient(make_settings: Callable[..., Settings], clock: FakeClock) -> AsyncIterator[Running]:
    """The app with its defaults except for the limits in memory: only the accounts' counters refuse."""
    settings = make_settings(
        throttle=True,
        login_per_address=10_000,
        signup_per_address=10_000,
        password_checks_per_user=10_000,
        hash_threads=4,
    )
    async with running(settings, clock) as it:
        yield it


def at(service: Running, address: str) -> httpx.AsyncClient:
    """Return a client with a separate IP address."""
    transport = httpx.ASGITransport(app=service.client._transport.app, client=(address, 50_000))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:8000")


async def try_login(
    client: httpx.AsyncClient, password: str = WRONG, username: str = "ada", **more: Any
) -> httpx.Response:
    return await client.post("/login", json={"username": username, "password": password, **more})


async def fail(client: httpx.AsyncClient, times: int, **more: Any) -> None:
    for _ in range(times):
        answer = await try_login(client, **more)
        assert answer.status_code == 401, answer.text


async def lock(service: Running, username: str = "ada") -> None:
    """Guess a hundred times, from ten IP addresses."""
    for number in range(10):
        await fail(at(service, f"198.51.100.{number}"), 10, username=username)


def hashes(service: Running) -> float:
    return service.container.metrics.hashes._value.get()


def kinds(service: Running) -> Counter[str]:
    return Counter(kind for (kind,) in service.rows("select kind from events"))


def refused(answer: httpx.Response, policy: str, quota: int, window: int) -> int:
    """Check that a response is a complete refusal of this limit, and return its seconds to wait."""
    assert answer.status_code == 429, answer.text
    assert answer.json()["code"] == "rate_limited"
    wait = int(answer.headers["retry-after"])
    assert 1 <= wait <= window
    assert answer.headers["ratelimit-policy"] == f'"{policy}";q={quota};w={window}'
    assert answer.headers["ratelimit"] == f'"{policy}";r=0;t={wait}'
    return wait


def told(answer: httpx.Response) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Return all of a response except the parts that differ each time."""
    body = {name: value for name, value in answer.json().items() if name != "request_id"}
    return answer.status_code, body, {k: v for k, v in answer.headers.items() if k != "x-request-id"}


async def test_the_thirty_first_login_in_a_minute_from_one_address_costs_no_hash(throttled: Running):
    """Fails without `count_login` in Users.log_in."""
    for number in range(30):
        answer = await try_login(throttled.client, username=f"nobody{number}")
        assert answer.status_code == 401
        throttled.clock.move(1)
    assert refused(await try_login(throttled.client, username="somebody"), "login", 30, 60) == 30
    assert hashes(throttled) == 30
    assert (await try_login(at(throttled, "203.0.113.9"))).status_code == 401
    throttled.clock.move(30)
    assert (await try_login(throttled.client, username="somebody")).status_code == 401
    refused(await try_login(throttled.client, username="somebody"), "login", 30, 60)


async def test_the_eleventh_sign_up_in_an_hour_from_one_address_is_refused(throttled: Running):
    """Fails without `count_signup` in Users.sign_up. A refused password does not count as a sign-up."""
    for number in range(10):
        weak = {"username": f"user{number}", "password": "password123"}
        assert (await throttled.client.post("/signup", json=weak)).status_code == 422
        await throttled.sign_up(f"user{number}")
    eleventh = {"username": "user10", "password": PASSWORD}
    refused(await throttled.client.post("/signup", json=eleventh), "signup", 10, 3600)
    assert (await at(throttled, "203.0.113.9").post("/signup", json=eleventh)).status_code == 201
    throttled.clock.move(3600)
    await throttled.sign_up("user11")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("unknown", "/run/app.sock", True),
        ("unknown", "192.0.2.1", False),
    ],
)
async def test_an_address_counts_by_network(
    make_settings: Callable[..., Settings], clock: FakeClock, one: str, other: str, same: bool
):
    """IPv6 by /64, mapped IPv4 as IPv4, and all unknown addresses as one."""
    async with running(make_settings(throttle=True, login_per_address=1), clock) as service:
        assert (await try_login(at(service, one))).status_code == 401
        assert (await try_login(at(service, other))).status_code == (429 if same else 401)


async def test_a_session_renews_itself_a_limited_number_of_times_a_minute(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without `count("refresh")` in Refreshes._limit. A forged token of the session is not counted."""
    async with running(make_settings(throttle=True, refresh_per_session=5), clock) as service:
        mine, other = await service.sign_up(), await service.log_in()
        forged = mine["refresh_token"][:-1] + ("A" if mine["refresh_token"][-1] != "A" else "B")
        for _ in range(20):
            assert (await service.client.post("/refresh", json={"refresh_token": forged})).status_code == 401
        for _ in range(5):
            answer = await service.client.post("/refresh", json={"refresh_token": mine["refresh_token"]})
            assert answer.status_code == 200
        answer = await service.client.post("/refresh", json={"refresh_token": mine["refresh_token"]})
        assert refused(answer, "refresh", 5, 60) == 60
        answer = await service.client.post("/refresh", json={"refresh_token": other["refresh_token"]})
        assert answer.status_code == 200
        assert (await service.get("/protected", mine)).status_code == 200
        clock.move(60)
        answer = await service.client.post("/refresh", json={"refresh_token": mine["refresh_token"]})
        assert answer.status_code == 200


async def test_repeats_are_not_counted_and_reuse_is_not_excused(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without the condition on the outcome in Refreshes._limit."""
    async with running(make_settings(throttle=True, refresh_per_session=5), clock) as service:
        old = {"refresh_token": (await service.sign_up())["refresh_token"]}
        clock.move(600)
        new = {"refresh_token": (await service.client.post("/refresh", json=old)).json()["refresh_token"]}
        for _ in range(20):
            assert (await service.client.post("/refresh", json=old)).json()["generation"] == 1
        for _ in range(4):
            assert (await service.client.post("/refresh", json=new)).status_code == 200
        assert (await service.client.post("/refresh", json=new)).status_code == 429
        clock.move(11)
        answer = await service.client.post("/refresh", json=old)
        assert answer.json()["code"] == "refresh_token_reused"


async def test_repeats_from_another_address_are_counted_for_each_writes_a_row(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without `suspicion` in Refreshes._limit: one session could fill the audit log."""
    async with running(make_settings(throttle=True, refresh_per_session=5), clock) as service:
        old = {"refresh_token": (await service.sign_up())["refresh_token"]}
        clock.move(600)
        assert (await service.client.post("/refresh", json=old)).status_code == 200
        service.client._transport.client = ("203.0.113.9", 4711)
        answers = [await service.client.post("/refresh", json=old) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 16
        told = service.rows("select count(*) from events where kind = 'session.repeated_elsewhere'")
        assert told == [(4,)]


async def test_after_ten_failures_even_the_right_password_waits_ten_minutes(patient: Running):
    """Fails without `_reserve` in Throttle.reserve_login. The window begins with the first failure."""
    await patient.sign_up()
    for _ in range(10):
        await fail(patient.client, 1)
        patient.clock.move(30)
    before = hashes(patient)
    assert refused(await try_login(patient.client, PASSWORD), "password", 10, 600) == 300
    assert hashes(patient) == before
    assert (await try_login(at(patient, "203.0.113.9"), PASSWORD)).status_code == 200
    patient.clock.move(300)
    assert (await try_login(patient.client, PASSWORD)).status_code == 200


async def test_a_right_password_forgets_the_wrong_ones(patient: Running):
    """Fails without `succeeded` in Users.log_in."""
    await patient.sign_up()
    for _ in range(15):
        await fail(patient.client, 9)
        await patient.log_in()
    assert patient.rows("select count(*) from password_tries") == [(0,)]


async def test_an_unknown_and_a_disabled_name_are_throttled_as_a_known_one(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if Throttle.reserve_login doesn't count unknown names."""
    few = {"login_per_address": 1000, "login_failures": 3, "account_failures": 10}
    async with running(make_settings(throttle=True, **few), clock) as service:
        await service.sign_up()
        await service.container.accounts.disable(_id(await service.sign_up("eve")), OPERATOR)
        stories = []
        for name in ("ada", "nobody", "not a name\x00", "eve"):
            clients = [at(service, f"198.51.100.{number}") for number in range(5) for _ in range(4)]
            stories.append([told(await try_login(client, username=name)) for client in clients])
    assert stories[0] == stories[1] == stories[2] == stories[3]
    assert Counter(status for status, _, _ in stories[0]) == {401: 10, 429: 10}


@pytest.mark.requirement("ASVS 6.3.1, NIST SP 800-63B-4")
async def test_of_parallel_guesses_none_is_one_too_many(patient: Running):
    """Fails if the attempt is counted after its hash, or read and then written."""
    await patient.sign_up()
    before = hashes(patient)
    answers = await asyncio.gather(*(try_login(patient.client) for _ in range(100)))
    assert Counter(answer.status_code for answer in answers) == {401: 10, 429: 90}
    assert hashes(patient) - before == 10
    clients = [at(patient, f"198.51.100.{number}") for number in range(20)]
    answers = await asyncio.gather(*(try_login(client) for client in clients * 12))
    assert Counter(answer.status_code for answer in answers) == {401: 90, 429: 150}
    assert hashes(patient) - before == 100


async def test_a_guess_that_is_refused_by_the_full_queue_is_not_counted(patient: Running):
    """Fails if Users.log_in reserves the attempt before it takes a place."""
    await patient.sign_up()
    pool = patient.container.passwords.pool
    room, pool.room = pool.room, 0
    for _ in range(20):
        answer = await try_login(patient.client, PASSWORD)
        assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
        assert int(answer.headers["retry-after"]) >= 1
    pool.room = room
    assert patient.rows("select count(*) from password_tries") == [(0,)]
    assert (await try_login(patient.client, PASSWORD)).status_code == 200


async def test_a_hundred_failures_in_a_row_lock_the_account_on_unknown_devices(patient: Running):
    """Fails without the second counter in FailureCounterKeys.for_unknown_device. No time unlocks it."""
    ada = await patient.sign_up()
    await lock(patient)
    assert kinds(patient)["user.login_failed"] == 100
    assert kinds(patient)["user.locked_out"] == 1
    for _ in range(2):
        answer = await try_login(at(patient, "203.0.113.9"), PASSWORD)
        assert refused(answer, "password", 10, 600) == 600
        patient.clock.move(3600)
    patient.clock.move(365 * 86_400)
    await patient.container.purge.run()
    assert (await try_login(at(patient, "203.0.113.9"), PASSWORD)).status_code == 429
    known = await try_login(at(patient, "203.0.113.9"), PASSWORD, device_token=ada["device_token"])
    assert known.status_code == 200
    assert (await try_login(at(patient, "203.0.113.9"), PASSWORD)).status_code == 429


async def test_a_new_password_from_a_living_session_unlocks(patient: Running):
    """Fails without `LoginAttemptQueries.clear_of_user` in Users.change_password."""
    ada = await patient.sign_up()
    await lock(patient)
    new = "other horse battery"
    answer = await patient.client.post(
        "/me/password", json={"current_password": PASSWORD, "new_password": new}, headers=bearer(ada)
    )
    assert answer.status_code == 200
    assert (await try_login(at(patient, "203.0.113.9"), new)).status_code == 200


async def test_a_reset_unlocks(patient: Running):
    """Fails without `LoginAttemptQueries.clear_of_user` in Accounts.reset_password."""
    ada = await patient.sign_up()
    await lock(patient)
    token = await patient.container.accounts.make_reset_token(_id(ada))
    new = {"token": token, "new_password": "other horse battery"}
    assert (await patient.client.post("/password-reset", json=new)).status_code == 204
    assert (await try_login(at(patient, "203.0.113.9"), new["new_password"])).status_code == 200


async def test_an_administrator_sees_the_lock_and_unlocks(patient: Running):
    """Fails without `locked` in the route, or `LoginAttemptQueries.clear_of_user` in Accounts.unlock."""
    ada, root = await patient.sign_up(), await patient.sign_up("root")
    await patient.container.accounts.change(_id(root), OPERATOR, {"roles": ["admin"]})
    path = f"/admin/users/{ada['user']['id']}"
    assert (await patient.get(path, root)).json()["locked"] is False
    await lock(patient)
    assert (await patient.get(path, root)).json()["locked"] is True
    listed = (await patient.get("/admin/users", root)).json()["items"]
    assert [each["locked"] for each in listed] == [True, False]
    for other in (True, 0, "false"):
        wrong = await patient.client.patch(path, json={"locked": other}, headers=bearer(root))
        assert wrong.status_code == 422
    answer = await patient.client.patch(path, json={"locked": False}, headers=bearer(root))
    assert answer.json()["locked"] is False
    assert kinds(patient)["user.unlocked"] == 1
    assert (await try_login(at(patient, "203.0.113.9"), PASSWORD)).status_code == 200


@pytest.mark.parametrize("path", ["/me/password", "/sessions/current/reauthenticate"])
async def test_a_session_that_guesses_its_password_is_throttled_alone(patient: Running, path: str):
    """Fails without `reserve_in_session` in Users._verify_in_session."""
    mine, other = await patient.sign_up(), await patient.log_in()

    async def guess(tokens: dict[str, Any], password: str) -> httpx.Response:
        names = ("current_password", "new_password") if path == "/me/password" else ("password",)
        body = {names[0]: password, **({names[1]: "other horse battery"} if names[1:] else {})}
        return await patient.client.post(path, json=body, headers=bearer(tokens))

    answers = await asyncio.gather(*(guess(mine, WRONG) for _ in range(30)))
    assert Counter(answer.status_code for answer in answers) == {401: 10, 429: 20}
    refused(await guess(mine, PASSWORD), "password", 10, 600)
    assert (await try_login(patient.client, PASSWORD)).status_code == 200
    assert (await guess(other, PASSWORD)).status_code == 200


async def test_a_restart_changes_nothing(make_settings: Callable[..., Settings], clock: FakeClock):
    """Fails if the failures are counted in memory."""
    settings = make_settings(throttle=True)
    async with running(settings, clock) as service:
        await service.sign_up()
        await fail(service.client, 6)
    async with running(settings, clock) as service:
        await fail(service.client, 4)
        refused(await try_login(service.client, PASSWORD), "password", 10, 600)


async def test_the_counts_hold_neither_names_nor_addresses_and_do_not_stay(patient: Running):
    """Fails without `LoginAttemptQueries.purge`.

    An account's consecutive failures stay, those of an unknown name for 30 days.
    """
    await patient.sign_up()
    await fail(at(patient, "203.0.113.77"), 3)
    await fail(at(patient, "203.0.113.77"), 3, username="nobody")
    held = repr(patient.rows("select * from password_tries")) + repr(patient.rows("select * from events"))
    assert "nobody" not in held
    assert "203.0.113.77" not in repr(patient.rows("select * from password_tries"))
    counts = []
    for days in (0, 1, 30):
        patient.clock.move(days * 86_400)
        await patient.container.purge.run()
        counts += patient.rows("select count(*) from password_tries")
    assert counts == [(4,), (2,), (1,)]


async def test_what_is_throttled_is_counted_by_limit(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    async with running(make_settings(throttle=True, metrics=True), clock) as service:
        await service.sign_up()
        await fail(service.client, 10)
        for _ in range(25):
            await try_login(service.client)
        found = re.findall(
            r"^sessionapi_throttled_total(.*)", (await service.client.get("/metrics")).text, re.M
        )
    assert sorted(found) == ['{policy="login"} 5.0', '{policy="password"} 20.0']


def test_a_million_addresses_leave_no_more_than_the_bound(clock: FakeClock):
    """Fails without `_forget`. A key is removed with its window, and the oldest one beyond the bound."""
    kept = rate_limiter.SlidingWindow(30, 60)
    for number in range(1_000_000 if os.environ.get("SESSIONAPI_PROVE") == "1" else 150_000):
        assert kept.count(str(number), clock().timestamp()) == 0
    assert len(kept) == rate_limiter.MAX_KEYS
    clock.move(60)
    assert kept.count("one more", clock().timestamp()) == 0
    assert len(kept) == 1


@pytest.mark.server
def test_without_throttling_nothing_is_refused_and_the_log_says_so(tmp_path: Path):
    """Fails without the warning in web.app._lifespan."""
    with serving(tmp_path / "var") as server:
        answers = [server.post("/login", **GUESS).status_code for _ in range(40)]
    assert answers == [401] * 40
    assert server.log.read_text().count("THROTTLE=off") == 1


def proxied(data: Path) -> Any:
    """Serve with the limits of accounts, behind a proxy that passes the IP addresses on."""
    return serving(
        data,
        throttle="on",
        login_per_address=100_000,
        signup_per_address=100_000,
        password_checks_per_user=100_000,
        trusted_proxies="127.0.0.1",
    )


def guess(url: str, address: str, username: str, password: str = WRONG, **more: str) -> httpx.Response:
    body = {"username": username, "password": password, **more}
    headers = {"X-Forwarded-For": address}
    return httpx.post(f"{url}/login", json=body, headers=headers, timeout=60, verify=NO_TLS)


def attack(data: Path, processes: int, bursts: int) -> dict[str, Counter[int]]:
    """Guess at a known and an unknown user from fifty IP addresses, in parallel, over several processes.

    In the middle all are killed and started again. The first burst comes from one address alone, and reaches
    the limit of that address.
    """
    outcomes: dict[str, Counter[int]] = {"ada": Counter(), "nobody": Counter()}
    with ThreadPoolExecutor(25) as pool:
        for part in range(2):
            with ExitStack() as stack:
                servers = [stack.enter_context(proxied(data)) for _ in range(processes)]
                for burst in range(bursts // 2):
                    for name, total in outcomes.items():
                        alone = (part, burst) == (0, 0)
                        addresses = ["198.51.100.1" if alone else f"198.51.100.{n}" for n in range(1, 51)]
                        calls = [
                            pool.submit(guess, servers[n % processes].url, address, name)
                            for n, address in enumerate(addresses)
                        ]
                        found = Counter(call.result().status_code for call in calls)
                        assert not alone or found == {401: 10, 429: 40}
                        total += found
                if part == 0:
                    for server in servers:
                        server.kill()
    return outcomes


def assert_the_owner_alone_gets_in(data: Path, device_token: str) -> None:
    with proxied(data) as server:
        new_device = guess(server.url, "203.0.113.5", "ada", PASSWORD)
        attacker = guess(server.url, "203.0.113.6", "ada")
        of_nobody = guess(server.url, "203.0.113.6", "nobody")
        assert new_device.status_code == 429
        for other in (attacker, of_nobody):
            assert refused(other, "password", 10, 600) == refused(new_device, "password", 10, 600)
            assert told(other)[:2] == told(new_device)[:2]
        assert guess(server.url, "203.0.113.5", "ada", PASSWORD, device_token=device_token).status_code == 200


def sign_up_there(data: Path) -> str:
    with proxied(data) as server:
        return server.sign_up()["device_token"]


@pytest.mark.server
def test_the_limits_hold_to_the_try_over_two_processes_and_a_restart(tmp_path: Path):
    """Fails if an attempt isn't reserved in the database, in one statement, before its hash."""
    device_token = sign_up_there(tmp_path / "var")
    outcomes = attack(tmp_path / "var", 2, 4)
    assert outcomes == {"ada": {401: 100, 429: 100}, "nobody": {401: 100, 429: 100}}
    assert_the_owner_alone_gets_in(tmp_path / "var", device_token)


@PROVE
@pytest.mark.prove
@pytest.mark.server
def test_the_limits_hold_to_the_try_over_four_processes(tmp_path: Path):
    device_token = sign_up_there(tmp_path / "var")
    outcomes = attack(tmp_path / "var", 4, 40)
    for name, found in outcomes.items():
        print(f"2,000 guesses at {name} from 50 addresses, 4 processes, kill -9: {dict(found)}")  # noqa: T201
        assert found == {401: 100, 429: 1900}
    assert_the_owner_alone_gets_in(tmp_path / "var", device_token)


@pytest.mark.server
async def test_the_command_line_unlocks(
    make_settings: Callable[..., Settings], clock: FakeClock, tmp_path: Path
):
    """Fails without `LoginAttemptQueries.clear_of_user` in Accounts.unlock."""
    settings = make_settings(throttle=True, login_failures=3, account_failures=10, login_per_address=100)
    async with running(settings, clock) as service:
        await service.sign_up()
        for number in range(5):
            await fail(at(service, f"198.51.100.{number}"), 2)
        assert (await try_login(service.client, PASSWORD)).status_code == 429
        own = environment(
            settings.data_dir,
            database_url=settings.database_url,
            secret=SERVER_SECRET,
            account_failures=10,
        )
        command = [sys.executable, "-m", "sessionapi", "users"]
        shown = subprocess.check_output([*command, "show", "ada", "--json"], env=own, cwd=tmp_path)
        assert json.loads(shown)["locked"] is True
        subprocess.run([*command, "unlock", "ada"], env=own, cwd=tmp_path, check=True)
        assert (await try_login(service.client, PASSWORD)).status_code == 200


def memory(server: Server) -> float:
    """Return the peak of a process's memory in MB."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


async def post(server: Server, address: str, body: dict[str, Any]) -> tuple[int, bytes]:
    """Log in on a new connection, with as little work here as possible; return status and head."""
    content = json.dumps(body).encode()
    url = httpx.URL(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = (
        f"POST /login HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    writer.write(head.encode() + content)
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1]), answer


async def flood(server: Server, logins: int) -> tuple[Counter[int], list[float]]:
    """Log in many times at once, from as many IP addresses; return the statuses and the /protected times."""
    tokens = server.sign_up()
    seconds: list[float] = []

    async def log_in(number: int) -> int:
        body = {"username": f"nobody{number}", "password": WRONG}
        status, head = await post(server, f"10.{number // 250}.{number % 250}.1", body)
        assert status not in (429, 503) or re.search(rb"(?i)\r\nretry-after: [1-9]", head)
        return status

    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        flooding = asyncio.gather(*(log_in(number) for number in range(logins)))
        while not flooding.done():
            began = time.perf_counter()
            assert (await client.get("/protected", headers=bearer(tokens))).status_code == 200
            seconds.append(time.perf_counter() - began)
            await asyncio.sleep(0.01)
        outcomes = Counter(await flooding)
        honest = await client.post("/login", json={"username": "ada", "password": PASSWORD})
        assert honest.status_code == 200
    return outcomes, seconds


def assert_a_flood_is_shed(data: Path, logins: int, **settings: Any) -> None:
    """Check that refusals have a Retry-After, /protected goes on, and honest logins succeed after it."""
    with serving(data, throttle="on", trusted_proxies="127.0.0.1", hash_threads=1, **settings) as server:
        outcomes, seconds = asyncio.run(flood(server, logins))
        peak = memory(server)
    assert sum(outcomes.values()) == logins
    assert set(outcomes) == {401, 503}
    assert outcomes[401] >= 101, "what had a place was served"
    assert seconds
    assert peak < 400
    median, worst = statistics.median(seconds) * 1000, max(seconds) * 1000
    protected = f"/protected {median:.0f} ms in the middle, {worst:.0f} at worst"
    print(f"{logins} logins at once: {protected}, memory {peak:.0f} MB, {dict(outcomes)}")  # noqa: T201


@pytest.mark.server
def test_a_flood_of_logins_is_shed_and_the_rest_goes_on(tmp_path: Path):
    """Fails without `place` in Passwords: nothing would be refused."""
    assert_a_flood_is_shed(tmp_path / "var", 200, hash_memory_kib=19_456, hash_time=2)


@PROVE
@pytest.mark.prove
@pytest.mark.server
def test_a_flood_of_two_thousand_logins_is_shed(tmp_path: Path):
    assert_a_flood_is_shed(tmp_path / "var", 2000, hash_memory_kib=19_456, hash_time=2)


@PROVE
@pytest.mark.prove
async def test_an_unknown_a_wrong_and_a_disabled_login_take_the_same_time(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without the dummy hash in Passwords.verify, or without `rewrite` in Throttle.failed."""
    many = {"login_per_address": 10_000, "password_checks_per_user": 10_000}
    settings = make_settings(throttle=True, hash_memory_kib=19_456, hash_time=2, **many)
    tries = 200
    async with running(settings, clock) as service:
        await service.sign_up()
        await service.container.accounts.disable(_id(await service.sign_up("eve")), OPERATOR)
        seconds: dict[str, list[float]] = {"nobody": [], "ada": [], "eve": []}
        for number in range(tries):
            await _forget_tries(service)
            for name in sorted(seconds, reverse=number % 2 == 1):
                began = time.perf_counter()
                answer = await try_login(service.client, username=name)
                seconds[name].append(time.perf_counter() - began)
                assert answer.status_code == 401
    base = statistics.median(seconds["nobody"])
    for name in ("ada", "eve"):
        pairs = zip(seconds[name], seconds["nobody"], strict=True)
        difference = statistics.median(one - other for one, other in pairs) / base
        print(f"{name} against nobody: {base * 1000:.1f} ms, {difference:+.1%}")  # noqa: T201
        assert abs(difference) < 0.05


def _id(tokens: dict[str, Any]) -> UUID:
    found = ids.parse("user", tokens["user"]["id"])
    assert found
    return found


async def _forget_tries(service: Running) -> None:
    async with service.container.store.begin() as tx:
        await tx.connection.execute(sa.delete(password_tries))


def test_each_limit_has_a_message_and_each_but_the_one_of_the_database_a_window(clock: FakeClock):
    """Fails if a new name is added to `LimitName` alone."""
    names = set(get_args(limits.LimitName))
    assert limits._REASONS.keys() == names, "add the message to _REASONS in throttling/limits.py"
    limiter = RateLimiter(RateLimits(), clock, Metrics(), enabled=True)
    assert limiter._windows.keys() == names - {"password"}, "add the window to throttling/rate_limiter.py"
