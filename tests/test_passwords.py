"""Accepted new passwords, supported old hashes, and a look-up of leaked passwords that reveals nothing."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import bcrypt
import httpx
import pytest
from argon2 import PasswordHasher
from passlib.hash import (
    django_argon2,
    django_bcrypt,
    django_bcrypt_sha256,
    django_pbkdf2_sha1,
    django_pbkdf2_sha256,
    pbkdf2_sha256,
    pbkdf2_sha512,
    scrypt,
    sha512_crypt,
)

from sessionapi import ids
from sessionapi.errors import WeakPassword
from sessionapi.settings import Settings
from sessionapi.users import password_policy
from tests.support.api_client import PASSWORD, bearer
from tests.support.app import Running, running
from tests.support.clock import FakeClock


def told(answer: httpx.Response) -> list[str]:
    """Return the rules that a refused password breaks; the message of each contains advice."""
    assert (answer.status_code, answer.json()["code"]) == (422, "weak_password"), answer.text
    errors = answer.json()["errors"]
    assert all(error["message"].endswith(".") for error in errors)
    assert answer.json()["detail"] == errors[0]["message"]
    return [error["code"] for error in errors]


async def sign_up(service: Running, password: str, username: str = "ada", **more: Any) -> httpx.Response:
    return await service.client.post("/signup", json={"username": username, "password": password, **more})


@pytest.mark.parametrize(
    ("password", "broken"),
    [
        ("seven77", ["too_short"]),
        ("password123", ["too_common"]),
        ("PassWord123", ["too_common"]),
        ("ｐａｓｓｗｏｒｄ１２３", ["too_common"]),
        ("trustno1", ["too_common"]),
        ("my Countess of Lovelace", ["contains_username"]),
        ("ＣＯＵＮＴＥＳＳ is my name", ["contains_username"]),
        ("write to enchantress@example.com", ["contains_email"]),
        ("the EnchanTress of numbers", ["contains_email"]),
        ("my sessionAPI password", ["contains_product"]),
        ("acme cloud forever", ["contains_product"]),
        ("acmecloud1", ["contains_product"]),
        ("letmein1", ["too_common"]),
        ("countes", ["too_short"]),
        ("countess", ["contains_username"]),
    ],
)
async def test_a_weak_password_is_told_each_rule_that_it_breaks(
    make_settings: Callable[..., Settings], clock: FakeClock, password: str, broken: list[str]
):
    """Each case fails without its line in PasswordRules._broken."""
    async with running(make_settings(brand_name="Acme Cloud"), clock) as service:
        before = service.container.metrics.hashes._value.get()
        answer = await sign_up(service, password, "Countess", email="enchantress@example.com")
        assert told(answer) == broken
        assert service.container.metrics.hashes._value.get() == before


@pytest.mark.parametrize(
    "password",
    [
        "8 signs!",
        "x" * 256,
        "correct horse battery",
        "  spaces around  ",
        "пароль от всего",
        "🐎🔋📎✨🐎🔋📎✨",
        "nothing of bo or of x.com",
        "e\u0301 is not \u00e9, as typed",
    ],
)
async def test_any_characters_are_taken_and_verified_exactly_as_they_came(service: Running, password: str):
    """Fails if a password is folded, trimmed or cut before its hash. It may contain a name of two letters."""
    assert (await sign_up(service, password, "bo", email="bo@x.com")).status_code == 201
    await service.log_in("bo", password)
    for other in (password[:-1], password + " ", password.swapcase() + "!"):
        answer = await service.client.post("/login", json={"username": "bo", "password": other[:256]})
        assert answer.status_code == (200 if other[:256] == password else 401)


def test_the_list_has_the_three_thousand_most_common_and_more():
    assert len(password_policy.COMMON) == 11_611
    assert all(len(word) >= 8 for word in password_policy.COMMON)


def test_each_common_password_is_refused_in_any_case():
    """Fails if a line of the file is in a form that no normalized password has."""
    rules = password_policy.PasswordRules([])
    for word in password_policy.COMMON:
        for password in (word, word.upper()):
            with pytest.raises(WeakPassword) as refused:
                rules.refuse_guessable(password, "", None)
            assert [each.code for each in refused.value.field_errors] == ["too_common"]
    for password in ("password1", "iloveyou1", "trustno1", "qwertyuiop", "12345678"):
        assert password in password_policy.COMMON


async def test_a_change_and_a_reset_follow_the_same_rules(service: Running):
    """Fails without `refuse_weak` in Users.change_password or Accounts.reset_password."""
    tokens = await service.sign_up("countess")
    for new, rule in (("password123", "too_common"), ("the countess!", "contains_username")):
        body = {"current_password": PASSWORD, "new_password": new}
        answer = await service.client.post("/me/password", json=body, headers=bearer(tokens))
        assert told(answer) == [rule]
        assert answer.json()["errors"][0]["field"] == "new_password"
        token = await service.container.accounts.make_reset_token(_id(tokens))
        reset = {"token": token, "new_password": new}
        assert told(await service.client.post("/password-reset", json=reset)) == [rule]
        reset["new_password"] = "other horse battery"
        assert (await service.client.post("/password-reset", json=reset)).status_code == 204
        tokens = await service.log_in("countess", "other horse battery")
        back = {"current_password": "other horse battery", "new_password": PASSWORD}
        tokens = (await service.client.post("/me/password", json=back, headers=bearer(tokens))).json()


LEGACY = {
    "bcrypt": lambda password: bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode(),
    "bcrypt of PHP": lambda password: (
        bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$")
    ),
    "PBKDF2": pbkdf2_sha256.using(rounds=10).hash,
    "PBKDF2 SHA-512": pbkdf2_sha512.using(rounds=10).hash,
    "scrypt": scrypt.using(rounds=4).hash,
    "sha512_crypt": sha512_crypt.using(rounds=1000).hash,
    "Django PBKDF2": django_pbkdf2_sha256.using(rounds=10).hash,
    "Django PBKDF2 SHA-1": django_pbkdf2_sha1.using(rounds=10).hash,
    "Django bcrypt": django_bcrypt.using(rounds=4).hash,
    "Django bcrypt SHA-256": django_bcrypt_sha256.using(rounds=4).hash,
    "Django Argon2": django_argon2.using(memory_cost=8, time_cost=1, parallelism=1).hash,
    "weaker Argon2id": PasswordHasher(time_cost=1, memory_cost=16, parallelism=2).hash,
}


@pytest.mark.parametrize("scheme", LEGACY)
async def test_a_legacy_hash_is_upgraded_at_the_first_login(service: Running, scheme: str):
    """Fails without the scheme in Passwords, or without `upgrade_hash`."""
    await service.container.accounts.add("ada", None, password=None, hashed=LEGACY[scheme](PASSWORD))
    before = service.rows("select password_hash from users")
    wrong = await service.client.post("/login", json={"username": "ada", "password": "wrong horse battery"})
    assert wrong.status_code == 401
    assert service.rows("select password_hash from users") == before
    await service.log_in()
    [(after,)] = service.rows("select password_hash from users")
    assert after.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    await service.log_in()
    assert service.rows("select password_hash from users") == [(after,)]


@pytest.mark.parametrize("scheme", ["bcrypt", "Django bcrypt"])
@pytest.mark.parametrize("letter", ["x", "é"])
async def test_a_long_bcrypt_password_is_cut_as_its_origin_did_and_whole_from_then_on(
    service: Running, scheme: str, letter: str
):
    """Fails without the cut at 72 bytes: bcrypt 5 refuses longer passwords, so the user could not log in."""
    cut = (letter * 80).encode()[:72]
    plain = bcrypt.hashpw(cut, bcrypt.gensalt(4)).decode()
    await service.container.accounts.add(
        "ada", None, password=None, hashed=plain if scheme == "bcrypt" else f"bcrypt${plain}"
    )
    short = await service.client.post("/login", json={"username": "ada", "password": letter * 35})
    assert short.status_code == 401
    await service.log_in("ada", letter * 73)
    other = await service.client.post("/login", json={"username": "ada", "password": letter * 74})
    assert other.status_code == 401, "the new hash is of the whole password"
    await service.log_in("ada", letter * 73)


async def test_a_password_that_a_legacy_hash_cannot_take_is_wrong_and_nothing_worse(service: Running):
    await service.container.accounts.add("ada", None, password=None, hashed=LEGACY["bcrypt"](PASSWORD))
    for password in (PASSWORD + "\x00", "\x00" * 8, "é" * 256):
        answer = await service.client.post("/login", json={"username": "ada", "password": password})
        assert answer.status_code == 401
    await service.log_in()


@dataclass
class Leaks:
    """A service that implements the protocol of the range search."""

    url: str = ""
    leaked: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    status: int = 200
    body: bytes | None = None
    answering: threading.Event = field(default_factory=threading.Event)

    def leak(self, password: str, count: int = 1) -> None:
        self.leaked[hashlib.sha1(password.encode()).hexdigest().upper()] = count

    def answer(self, path: str) -> bytes:
        prefix = path.rpartition("/")[2]
        found = [f"{each[5:]}:{count}" for each, count in self.leaked.items() if each.startswith(prefix)]
        padding = [f"{number:035X}:0" for number in range(5)]
        return self.body if self.body is not None else "\r\n".join([*padding, *found]).encode()


@contextmanager
def leaks_served() -> Iterator[Leaks]:
    leaks = Leaks()
    leaks.answering.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            leaks.asked.append((self.path, self.headers["Add-Padding"]))
            leaks.answering.wait(30)
            self.send_response(leaks.status)
            self.end_headers()
            self.wfile.write(leaks.answer(self.path))

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    leaks.url = f"http://127.0.0.1:{server.server_port}/range"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield leaks
    finally:
        leaks.answering.set()
        server.shutdown()
        thread.join()
        server.server_close()


def checks(service: Running) -> dict[str, float]:
    found = service.container.metrics.breach_checks._metrics.items()
    return {outcome: metric._value.get() for (outcome,), metric in found}


async def test_a_leaked_password_is_refused_and_only_five_letters_of_its_hash_are_told(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails without `is_breached` in PasswordRules. A padded line, of count 0, is not a leak."""
    with leaks_served() as leaks:
        settings = make_settings(breached_passwords=True, breached_passwords_url=leaks.url)
        async with running(settings, clock) as service:
            leaks.leak("leaked horse battery", 17)
            leaks.leak("padded horse battery", 0)
            assert told(await sign_up(service, "leaked horse battery")) == ["breached"]
            assert (await sign_up(service, "padded horse battery")).status_code == 201
            assert told(await sign_up(service, "password123", "bo")) == ["too_common"]
            assert checks(service) == {"found": 1, "clean": 1}
    digest = hashlib.sha1(b"leaked horse battery").hexdigest().upper()
    assert leaks.asked[0] == (f"/range/{digest[:5]}", "true")
    assert len(leaks.asked) == 2
    assert all(len(path) == len("/range/") + 5 for path, _ in leaks.asked)


async def test_a_new_password_is_looked_up_only_after_the_present_one_was_counted_and_verified(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if refuse_weak comes before the attempt in Users.change_password."""
    with leaks_served() as leaks:
        settings = make_settings(breached_passwords=True, breached_passwords_url=leaks.url, throttle=True)
        async with running(settings, clock) as service:
            leaks.leak("leaked horse battery")
            tokens = (await sign_up(service, PASSWORD)).json()
            leaks.asked.clear()

            async def change(current: str) -> httpx.Response:
                body = {"current_password": current, "new_password": "leaked horse battery"}
                return await service.client.post("/me/password", json=body, headers=bearer(tokens))

            assert [(await change("wrong horse battery")).status_code for _ in range(11)] == [401] * 10 + [
                429
            ]
            assert leaks.asked == []
            clock.move(601)
            tokens = (await service.refresh(tokens)).json()
            assert told(await change(PASSWORD)) == ["breached"]
            assert len(leaks.asked) == 1
            assert service.rows("select count(*) from password_tries") == [(0,)], "a right one clears them"


async def test_a_reset_is_counted_before_its_password_is_looked_up(
    make_settings: Callable[..., Settings], clock: FakeClock
):
    """Fails if refuse_weak comes before count_reset in Accounts.reset_password."""
    with leaks_served() as leaks:
        settings = make_settings(
            breached_passwords=True,
            breached_passwords_url=leaks.url,
            throttle=True,
            password_checks_per_user=3,
        )
        async with running(settings, clock) as service:
            leaks.leak("leaked horse battery")
            token = await service.container.accounts.make_reset_token(
                _id((await sign_up(service, PASSWORD)).json())
            )
            leaks.asked.clear()
            body = {"token": token, "new_password": "leaked horse battery"}
            answers = [await service.client.post("/password-reset", json=body) for _ in range(5)]
            assert [answer.status_code for answer in answers] == [422] * 3 + [429] * 2
            assert len(leaks.asked) == 3


@pytest.mark.parametrize("trouble", ["error", "nonsense", "binary", "silence", "nobody there"])
async def test_a_look_up_that_fails_lets_the_password_pass_and_is_counted(
    make_settings: Callable[..., Settings], clock: FakeClock, trouble: str
):
    """Fails without the `except`, or without the timeout, in BreachedPasswords.contains."""
    with leaks_served() as leaks:
        url = "http://127.0.0.1:9/range" if trouble == "nobody there" else leaks.url
        leaks.status = 503 if trouble == "error" else 200
        leaks.body = {"nonsense": b"<html>not this</html>", "binary": b"\xff\xfe:\x00\x01"}.get(trouble)
        if trouble == "silence":
            leaks.answering.clear()
        settings = make_settings(breached_passwords=True, breached_passwords_url=url)
        async with running(settings, clock) as service:
            assert (await sign_up(service, PASSWORD)).status_code == 201
            assert checks(service) == {"failed": 1}


async def test_a_throttled_sign_up_looks_nothing_up(make_settings: Callable[..., Settings], clock: FakeClock):
    """Fails if Users.sign_up queries before it counts: any client could make us query without limit."""
    with leaks_served() as leaks:
        settings = make_settings(breached_passwords=True, breached_passwords_url=leaks.url, throttle=True)
        async with running(settings, clock) as service:
            leaks.leak(PASSWORD)
            answers = [await sign_up(service, PASSWORD) for _ in range(13)]
        assert [answer.status_code for answer in answers] == [422] * 10 + [429] * 3
        assert len(leaks.asked) == 10


async def test_nothing_is_looked_up_by_default(make_settings: Callable[..., Settings], clock: FakeClock):
    with leaks_served() as leaks:
        async with running(make_settings(breached_passwords_url=leaks.url), clock) as service:
            await service.sign_up()
        assert leaks.asked == []


def _id(tokens: dict[str, Any]) -> Any:
    return ids.parse("user", tokens["user"]["id"])
