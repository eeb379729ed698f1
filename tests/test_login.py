"""Signing up and logging in: accepted input, the error for each other input, and the stored rows."""

import asyncio
import os
import threading
from datetime import timedelta

import bcrypt
import pytest
import sqlalchemy as sa

from sessionapi.sessions.actors import OPERATOR
from sessionapi.storage.tables import sessions, users
from tests.support.api_client import PASSWORD
from tests.support.app import Running, running


def hashes(service: Running) -> float:
    return service.container.metrics.hashes._value.get()


async def test_a_sign_up_answers_tokens_and_leaves_one_user_and_one_session(service: Running):
    answer = await service.client.post(
        "/signup", json={"username": "Ada", "password": PASSWORD, "email": "ada@example.com"}
    )
    body = answer.json()
    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert body["user"] == {"id": body["user"]["id"], "username": "Ada", "email": "ada@example.com"}
    assert body["token_type"] == "Bearer"
    assert (body["generation"], body["expires_in"]) == (0, 60)
    assert body["refresh_token"].startswith("sr_")
    assert service.rows("select username, username_key, credential_version from users") == [("Ada", "ada", 0)]
    assert service.rows("select generation, transport, remember from sessions") == [(0, "body", 1)]
    assert service.rows("select kind from events order by id") == [("user.created",), ("session.started",)]


async def test_the_row_of_a_session_follows_remember_me(service: Running):
    await service.sign_up()
    await service.log_in(remember=False, device_name="A kiosk")
    async with service.container.store.read() as tx:
        found = (await tx.connection.execute(sa.select(sessions).order_by(sessions.c.id))).all()
    lifetimes = [(row.idle_timeout, row.expires_at - row.created_at, row.device_name) for row in found]
    assert lifetimes == [
        (7 * 86_400, timedelta(days=30), "Python HTTPX"),
        (12 * 3600, timedelta(hours=24), "A kiosk"),
    ]


@pytest.mark.parametrize("name", ["ada", "ADA", "Ａｄａ"])
async def test_a_name_is_one_in_any_case_and_width(service: Running, name):
    await service.sign_up("Ada")
    assert (
        await service.client.post("/signup", json={"username": name, "password": PASSWORD})
    ).status_code == 409
    assert (await service.log_in(name))["user"]["username"] == "Ada"


async def test_fifty_sign_ups_of_one_name_at_once_make_one_user(service: Running):
    """Fails without the unique index on username_key."""
    names = ["ada", "ADA", "Ａda"]
    answers = await asyncio.gather(
        *(
            service.client.post("/signup", json={"username": names[i % 3], "password": PASSWORD})
            for i in range(50)
        )
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 49
    assert {answer.json()["code"] for answer in answers if answer.status_code == 409} == {"username_taken"}
    assert service.rows("select count(*) from users") == [(1,)]
    assert service.rows("select count(*) from sessions") == [(1,)]


@pytest.mark.requirement("ASVS 6.3.8")
async def test_an_unknown_user_a_wrong_password_and_a_disabled_user_look_alike_and_cost_one_hash_each(
    service: Running,
):
    """Fails without the dummy hash in Passwords.verify, or with an early refusal in Users.log_in."""
    await service.sign_up()
    await service.sign_up("bob")
    await service.container.accounts.disable((await service.container.accounts.find("bob")).id, OPERATOR)
    told = []
    attempts = [(name, "wrong horse") for name in ("ada", "nobody", "not a name\x00")]
    for name, password in (*attempts, ("bob", PASSWORD)):
        before = hashes(service)
        answer = await service.client.post("/login", json={"username": name, "password": password})
        assert hashes(service) - before == 1
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        same = {key: value for key, value in answer.json().items() if key != "request_id"}
        told.append((same, sorted(set(answer.headers) - {"x-request-id"}), answer.headers["content-length"]))
    assert told[0] == told[1] == told[2] == told[3]
    assert told[0][0]["code"] == "invalid_credentials"


async def test_a_disabled_user_looks_like_a_wrong_password(service: Running):
    """Fails without the check of disabled_at in Users._authenticate and in lock_if_unchanged."""
    await service.sign_up()
    async with service.container.store.begin() as tx:
        await tx.connection.execute(sa.update(users).values(disabled_at=service.clock()))
    answer = await service.client.post("/login", json={"username": "ada", "password": PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("path", ["/login", "/signup"])
@pytest.mark.parametrize(
    ("content", "headers", "status", "code"),
    [
        (b'{"username": "ada"}', JSON, 422, "validation_failed"),
        (b'{"username": "ada", "password": 12345678}', JSON, 422, "validation_failed"),
        (b'{"username": "ada", "password": "\\ud800\\ud800\\ud800"}', JSON, 400, "malformed_body"),
        (b'{"username": "ada", "password": "long enough", "surprise": 1}', JSON, 422, "validation_failed"),
        (b'{"username": "ada", "password": "' + b"x" * 257 + b'"}', JSON, 422, "validation_failed"),
        (b"[]", JSON, 422, "validation_failed"),
        (b"null", JSON, 422, "validation_failed"),
        (b"", JSON, 422, "validation_failed"),
        (b"{", JSON, 400, "malformed_body"),
        (b'{"username": "\xff\xfe"}', JSON, 400, "malformed_body"),
        (b"[" * 60_000, JSON, 400, "malformed_body"),
        (b"9" * 60_000, JSON, 400, "malformed_body"),
        (
            b"username=ada&password=x",
            {"content-type": "application/x-www-form-urlencoded"},
            415,
            "unsupported_media_type",
        ),
        (
            b'{"username": "ada", "password": "x"}',
            {"content-type": "text/plain"},
            415,
            "unsupported_media_type",
        ),
        (b'{"username": "ada", "password": "x"}', {}, 415, "unsupported_media_type"),
        (b'{"username": "' + b"x" * 2_000_000 + b'"}', JSON, 413, "payload_too_large"),
    ],
)
async def test_bad_input_is_told_what_is_wrong_and_hashes_nothing(
    service: Running, path, content, headers, status, code
):
    before = hashes(service)
    answer = await service.client.post(path, content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert hashes(service) == before


async def test_a_body_without_a_length_is_bounded_too(service: Running):
    async def endless():
        for _ in range(40):
            yield b" " * 65_536

    answer = await service.client.post("/login", content=endless(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_an_error_never_repeats_what_was_typed(service: Running):
    body = {"username": "ada", "password": ["hunter2-secret"], "surprise": "hunter2-secret"}
    answer = await service.client.post("/login", json=body)
    assert answer.status_code == 422
    assert "hunter2" not in answer.text
    assert {item["field"] for item in answer.json()["errors"]} == {"password", "surprise"}


@pytest.mark.parametrize(
    "member",
    [
        {"username": ""},
        {"username": "a" * 151},
        {"username": "two words"},
        {"username": "nul\x00"},
        {"email": "nowhere"},
        {"email": "a\x00@example.com"},
        {"device_name": ""},
        {"device_name": "x" * 101},
        {"device_name": "bell\x07"},
        {"transport": "pigeon"},
        {"remember": "yes"},
    ],
)
async def test_a_sign_up_names_the_member_that_is_wrong(service: Running, member):
    body = {"username": "ada", "password": PASSWORD, **member}
    answer = await service.client.post("/signup", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [item["field"] for item in answer.json()["errors"]] == list(member)


async def test_a_password_of_seven_characters_is_weak_and_one_of_256_is_taken_whole(service: Running):
    answer = await service.client.post("/signup", json={"username": "ada", "password": "seven77"})
    assert (answer.status_code, answer.json()["code"]) == (422, "weak_password")
    await service.sign_up("ada", "x" * 255 + "y")
    answer = await service.client.post("/login", json={"username": "ada", "password": "x" * 256})
    assert answer.status_code == 401


async def test_a_closed_sign_up_says_so(make_settings, clock):
    async with running(make_settings(signup="closed"), clock) as service:
        answer = await service.client.post("/signup", json={"username": "ada", "password": PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (403, "signup_closed")


async def test_a_legacy_or_weaker_hash_is_upgraded_at_login(service: Running):
    await service.sign_up()
    old = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    async with service.container.store.begin() as tx:
        await tx.connection.execute(sa.update(users).values(password_hash=old))
    await service.log_in()
    assert service.rows("select password_hash from users")[0][0].startswith("$argon2id$")
    await service.log_in()


async def test_an_upgraded_hash_is_written_only_over_the_one_that_was_verified(service: Running):
    """Fails without the comparison of password_hash in upgrade_hash."""
    tokens = await service.sign_up()
    async with service.container.store.read() as tx:
        user = await tx.users.by_name("ada")
    async with service.container.store.begin() as tx:
        await tx.users.upgrade_hash(user.id, verified="another hash", upgraded="an old password's hash")
    assert (await service.log_in())["user"] == tokens["user"]


async def test_the_cookie_transport_sets_a_host_cookie_and_keeps_the_token_out_of_the_body(service: Running):
    body = {"username": "ada", "password": PASSWORD, "transport": "cookie"}
    answer = await service.client.post("/signup", json=body)
    assert "refresh_token" not in answer.json()
    cookie = answer.headers.get_list("set-cookie")[0]
    name, _, rest = cookie.partition("=")
    attributes = {part.strip().lower() for part in rest.split(";")[1:]}
    assert name == "__Host-session"
    assert attributes == {"httponly", "secure", "samesite=lax", "path=/", "max-age=2592000"}
    short = await service.client.post("/login", json={**body, "remember": False})
    assert "max-age" not in short.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://localhost:8000"}, 200),
        ({"Origin": "https://app.example.com"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
async def test_a_cookie_is_set_only_for_an_origin_that_may(make_settings, clock, headers, status):
    """Fails without the CsrfRejected of the login routes."""
    async with running(make_settings(allowed_origins="https://app.example.com"), clock) as service:
        await service.sign_up()
        body = {"username": "ada", "password": PASSWORD, "transport": "cookie"}
        answer = await service.client.post("/login", json=body, headers=headers)
    assert answer.status_code == status
    assert ("set-cookie" in answer.headers) == (status == 200)


async def test_me_returns_the_account(service: Running):
    tokens = await service.sign_up(email="ada@example.com")
    answer = await service.get("/me", tokens)
    assert answer.json() == {
        **tokens["user"],
        "roles": [],
        "preferences": {},
        "created_at": "2026-11-24T09:00:00Z",
    }


async def test_logins_that_find_no_room_are_refused_at_once(service: Running):
    """Fails without the check of `room` in HashPool.place."""
    service.container.passwords.pool.room = 0
    answer = await service.client.post("/login", json={"username": "ada", "password": PASSWORD})
    assert (answer.status_code, answer.json()["code"]) == (503, "overloaded")
    assert answer.headers["retry-after"] == "1"


async def test_a_hash_runs_at_low_priority_off_the_event_loop(service: Running):
    def look() -> tuple[int, str]:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id()), threading.current_thread().name

    with service.container.passwords.place("a lane") as place:
        priority, thread = await place.run(look)
    assert priority >= 10
    assert thread.startswith("hash")
