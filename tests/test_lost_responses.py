"""Responses lost on the wire: a real server, and a client that closes its socket before it reads."""

import json
import select
import socket
import sqlite3
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.api_client import refusal
from tests.support.server import Server, serving

pytestmark = pytest.mark.server
MOMENTS = ("rotated_at", "repeated_at", "last_seen_at", "created_at", "auth_time", "expires_at")


def refresh_and_hang_up(server: Server, tokens: dict, key: str | None = None) -> None:
    """Refresh, and close the socket without reading once the response has reached this host."""
    url = urlsplit(server.url)
    body = json.dumps({"refresh_token": tokens["refresh_token"]})
    sent = [
        "POST /refresh HTTP/1.1",
        f"Host: {url.netloc}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *([f"Idempotency-Key: {key}"] if key else []),
    ]
    with socket.create_connection((url.hostname, url.port), timeout=10) as wire:
        wire.sendall("\r\n".join([*sent, "", body]).encode())
        assert select.select([wire], [], [], 10)[0], "no answer came"


def an_hour_passes(data: Path) -> None:
    """Move every time of every session an hour into the past."""
    changes = ", ".join(f"{name} = {name} - 3600000000" for name in MOMENTS)
    with sqlite3.connect(data / "sessionapi.db") as database:
        database.execute(f"update sessions set {changes}")
    database.close()


def stored(data: Path) -> list[tuple]:
    with sqlite3.connect(data / "sessionapi.db") as database:
        return database.execute("select generation, revoke_reason from sessions").fetchall()


def test_an_answer_lost_at_a_rotation_is_had_again_an_hour_later_with_the_same_key(tmp_path: Path):
    """Fails without `known` in the condition of a repeat in policy.decide."""
    data = tmp_path / "var"
    with serving(data) as server:
        tokens = server.sign_up()
        an_hour_passes(data)
        refresh_and_hang_up(server, tokens, "the-key")
        assert stored(data) == [(1, None)]
        an_hour_passes(data)
        again = server.refresh(tokens, "the-key")
        assert (again.status_code, again.json()["generation"]) == (200, 1)
        assert server.refresh(again.json()).status_code == 200


def test_two_tabs_that_lost_their_answers_both_have_them_again_with_their_own_keys(tmp_path: Path):
    """Fails without `stores_key` of a repeat: only the key of the tab that rotated is stored then."""
    data = tmp_path / "var"
    with serving(data) as server:
        tokens = server.sign_up()
        an_hour_passes(data)
        refresh_and_hang_up(server, tokens, "tab-one")
        refresh_and_hang_up(server, tokens, "tab-two")
        assert stored(data) == [(1, None)]
        an_hour_passes(data)
        answers = [server.refresh(tokens, key) for key in ("tab-two", "tab-one")]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert len({answer.json()["refresh_token"] for answer in answers}) == 1


def test_without_a_key_it_is_reuse_and_the_revocation_survives_a_kill(tmp_path: Path):
    """Fails if the response leaves before the transaction of the reuse has committed."""
    data = tmp_path / "var"
    with serving(data) as server:
        tokens = server.sign_up()
        an_hour_passes(data)
        refresh_and_hang_up(server, tokens)
        an_hour_passes(data)
        reused = server.refresh(tokens)
        server.kill()
        assert refusal(reused) == (401, "refresh_token_reused", None)
    assert stored(data) == [(1, "refresh_reuse")]
    with serving(data) as server:
        assert refusal(server.refresh(tokens)) == (401, "session_revoked", "refresh_reuse")
