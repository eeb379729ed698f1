"""JSON bodies: one rule reads them on every route, and errors about them are few, short and cheap."""

import json
from typing import Any

import httpx
import pytest

from tests.support.api_client import PASSWORD, bearer, refusal
from tests.support.app import Running

pytestmark = pytest.mark.engines("sqlite")  # nothing here depends on the database

JSON = "application/json"
BOM = b"\xef\xbb\xbf"
UNSUPPORTED = (415, "unsupported_media_type", None)
MALFORMED = (400, "malformed_body", None)


def routes(tokens: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    """A valid body for each JSON route."""
    return {
        ("POST", "/signup"): {"username": "bob", "password": PASSWORD},
        ("POST", "/login"): {"username": "ada", "password": PASSWORD},
        ("POST", "/refresh"): {"refresh_token": tokens["refresh_token"]},
        ("POST", "/logout"): {"refresh_token": "sr_unknown"},
        ("POST", "/password-reset"): {"token": "pr_unknown", "new_password": "a new good password"},
        ("POST", "/introspect"): {"token": "x"},
        ("POST", "/me/password"): {"current_password": "wrong", "new_password": "a new good password"},
        ("POST", "/sessions/current/reauthenticate"): {"password": PASSWORD},
        ("PATCH", "/me"): {"preferences": {"a": 1}},
        ("PATCH", "/sessions/current"): {"data": {"a": 1}},
        ("PATCH", "/admin/users/user_01h455vb4pex5vsknk084sn02q"): {"locked": False},
    }


async def send(
    service: Running, route: tuple[str, str], content: bytes, kind: str | None = JSON
) -> httpx.Response:
    tokens = await service.log_in()
    own = bearer(service.service_token) if route[1] == "/introspect" else bearer(tokens)
    headers = {**own, **({} if kind is None else {"Content-Type": kind.encode("latin-1")})}
    return await service.client.request(*route, content=content, headers=headers)


@pytest.fixture
async def signed_up(service: Running) -> Running:
    """The service with the user ada and a service token."""
    await service.sign_up()
    service.service_token = await service.container.service_tokens.add("verifier")
    return service


@pytest.mark.parametrize("number", range(11))
async def test_every_route_reads_a_body_by_one_rule(signed_up: Running, number: int):
    """Fails if /refresh and the framework's routes parse separately: BOM, UTF-16, `+json`, NaN differed."""
    route, body = list(routes(await signed_up.log_in()).items())[number]
    text = json.dumps(body)
    good = [
        (text.encode(), JSON),
        (BOM + text.encode(), JSON),
        (f" \r\n\t{text}\n".encode(), JSON),
        (text.encode(), "Application/JSON; charset=utf-8"),
        (text.encode(), "application/json;charset=utf-16"),
        (text.encode(), "application/vnd.api+json"),
    ]
    for content, kind in good:
        answer = await send(signed_up, route, content, kind)
        assert answer.status_code not in (400, 415), f"{route} {content!r} {kind} {answer.text}"
        assert answer.status_code != 422 or answer.json()["errors"][0]["code"] == "invalid_or_used"
    for kind in (
        None,
        "",
        "text/plain",
        "text/json",
        "application/jsonp",
        "json",
        "application/json, text/plain",
    ):
        if (route[1], kind) != ("/introspect", "application/x-www-form-urlencoded"):
            assert refusal(await send(signed_up, route, text.encode(), kind)) == UNSUPPORTED, (
                f"{route} {kind}"
            )
    for kind in ("application/json\xa0", "\xa0application/json", "application/+json", "application/a/b+json"):
        assert refusal(await send(signed_up, route, text.encode(), kind)) == UNSUPPORTED, f"{route} {kind}"
    wrong = [text.encode("utf-16"), text.encode("utf-32"), text.encode("utf-16-le"), BOM, BOM + BOM + b"{}"]
    wrong += [b"{", b"NaN", b'{"a": Infinity}', b'{"a": -Infinity}', b"{'a': 1}", b'{"a": "\xff"}', b"{} {}"]
    wrong += [b'{"a": "\\ud800"}', b'{"a": ' + b"9" * 5000 + b"}", b"[" * 60_000, b'{"a": 1,}', b"\x00{}"]
    for content in wrong:
        assert refusal(await send(signed_up, route, content)) == MALFORMED, f"{route} {content[:40]!r}"


async def test_an_empty_body_needs_no_content_type(signed_up: Running):
    """The required fields are reported as missing then, whatever the Content-Type."""
    for kind in (None, JSON, "text/plain"):
        answer = await send(signed_up, ("POST", "/login"), b"", kind)
        assert refusal(answer) == (422, "validation_failed", None)
        assert (await send(signed_up, ("POST", "/logout"), b"", kind)).status_code == 204
        answer = await send(signed_up, ("POST", "/refresh"), b"", kind)
        assert refusal(answer) == (401, "invalid_refresh_token", None)


def many(count: int) -> bytes:
    return json.dumps({f"{number:x}": 1 for number in range(count)}, separators=(",", ":")).encode()


@pytest.mark.parametrize("path", ["/login", "/refresh", "/logout", "/signup", "/password-reset"])
async def test_the_first_ten_errors_and_their_count_are_reported(service: Running, path: str):
    """Fails without MAX_ERRORS in _of_invalid_input: 64 KB of unknown fields made 682 KB of errors."""
    before = await service.client.post(path, content=many(3), headers={"Content-Type": JSON})
    own = len(before.json()["errors"]) - 3
    assert before.json()["detail"] == "Some fields are missing or invalid; see errors."
    for count in (10 - own, 11 - own, 100, 6000):
        answer = await service.client.post(path, content=many(count), headers={"Content-Type": JSON})
        assert refusal(answer) == (422, "validation_failed", None)
        problem = answer.json()
        assert len(problem["errors"]) == min(10, own + count)
        if own + count > 10:
            expected = f"{own + count} fields are missing or invalid; errors has the first 10."
            assert problem["detail"] == expected
        assert len(answer.content) < 3000


async def test_the_fields_that_are_known_count_wherever_they_stand(service: Running):
    """A known field after 6,000 unknown ones is not reported as missing."""
    await service.sign_up()
    body = {**json.loads(many(6000)), "username": "ada", "password": PASSWORD}
    answer = await service.client.post("/login", json=body)
    fields = [error["field"] for error in answer.json()["errors"]]
    assert fields == [f"{number:x}" for number in range(10)]
    assert answer.json()["detail"].startswith("6000 fields ")


async def test_the_name_of_a_field_is_cut_in_an_error(service: Running):
    answer = await service.client.post("/refresh", json={"a" * 60_000: 1, "b" * 100: 1})
    assert [error["field"] for error in answer.json()["errors"]] == ["a" * 100 + "...", "b" * 100]


async def test_a_list_of_wrong_items_makes_few_errors(signed_up: Running):
    """The list of roles is the only list that a body may have."""
    tokens = await signed_up.log_in()
    await signed_up.set_roles("ada", ["admin"])
    path = "/admin/users/user_01h455vb4pex5vsknk084sn02q"
    for count, listed in ((32, 10), (20_000, 1)):
        answer = await signed_up.send("PATCH", path, tokens, {"roles": [""] * count})
        assert refusal(answer) == (422, "validation_failed", None)
        assert len(answer.json()["errors"]) == listed


async def test_a_form_of_many_fields_is_refused(signed_up: Running):
    """Fails without MAX_FORM_FIELDS: 64 KB of empty fields took 30 ms."""
    headers = {**bearer(signed_up.service_token), "Content-Type": "application/x-www-form-urlencoded"}
    for content, status in ((b"token=x&token_type_hint=y", 200), (b"token=x" + b"&a" * 30_000, 400)):
        answer = await signed_up.client.post("/introspect", content=content, headers=headers)
        assert answer.status_code == status
    assert refusal(answer) == MALFORMED
