"""The IP address of a request: the one from a trusted proxy, never one that another client sent."""

from pathlib import Path

import httpx
import pytest

from sessionapi.errors import StartupError
from sessionapi.settings import Settings, load
from tests.support.api_client import PASSWORD, bearer
from tests.support.server import Server, serving

pytestmark = pytest.mark.server


def seen_as(server: Server, *forwarded: str, name: str) -> str | None:
    """Sign up with these headers, and return the IP address that the list of devices then shows."""
    headers = [("X-Forwarded-For", value) for value in forwarded]
    body = {"username": name, "password": PASSWORD}
    answer = httpx.post(f"{server.url}/signup", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    listed = httpx.get(f"{server.url}/sessions", headers=bearer(answer.json())).json()
    return listed["items"][0]["ip"]


def test_the_rightmost_address_that_is_no_proxy_counts(tmp_path: Path):
    """Fails if uvicorn is given `*`, or if the leftmost address is taken."""
    with serving(tmp_path / "var", trusted_proxies="127.0.0.1,10.0.0.0/8,2001:db8:9::/48") as server:
        said = [
            ("203.0.113.7",),
            ("6.6.6.6, 203.0.113.7",),
            ("6.6.6.6", "203.0.113.7"),
            ("127.0.0.1, 203.0.113.7, 10.1.2.3",),
            ("203.0.113.7, 2001:db8:9::1, 10.255.0.1",),
            ("2001:db8:1::5",),
            ("[2001:db8:1::5]:4711",),
            ("203.0.113.7:4711",),
            ("::ffff:203.0.113.7",),
            ("unknown",),
            ("6.6.6.6, unknown",),
            ("x" * 500,),
            ("",),
        ]
        found = [seen_as(server, *each, name=f"user{number}") for number, each in enumerate(said)]
        assert found == [
            *["203.0.113.7"] * 5,
            *["2001:db8:1::5"] * 2,
            *["203.0.113.7"] * 2,
            *[None] * 3,
            "127.0.0.1",
        ]
    assert "TRUSTED_PROXIES" not in server.log.read_text()


@pytest.mark.parametrize("trusted", ["", "10.0.0.0/8"])
def test_nobody_else_is_believed_and_one_line_says_so(tmp_path: Path, trusted: str):
    """Fails without `_with_warning` in ForwardedClient, or if the warning is logged each time."""
    with serving(tmp_path / "var", trusted_proxies=trusted) as server:
        found = [seen_as(server, "203.0.113.7", name=f"user{number}") for number in range(3)]
    assert found == ["127.0.0.1"] * 3
    assert server.log.read_text().count("TRUSTED_PROXIES") == 1


def test_no_header_no_warning(tmp_path: Path):
    with serving(tmp_path / "var") as server:
        assert httpx.get(f"{server.url}/healthz").status_code == 200
    assert "TRUSTED_PROXIES" not in server.log.read_text()


def test_an_ipv4_proxy_is_known_on_an_ipv6_socket(tmp_path: Path):
    """Fails without the mapped networks in `trusted_peers`."""
    with serving(tmp_path / "var", "--host", "::", trusted_proxies="127.0.0.0/8") as server:
        server.url = server.url.replace("[::]", "127.0.0.1")
        assert seen_as(server, "203.0.113.7", name="ada") == "203.0.113.7"


def test_spoofing_does_not_get_around_the_limit_of_an_address(tmp_path: Path):
    with serving(tmp_path / "var", throttle="on", trusted_proxies="127.0.0.1", login_per_address=3) as server:
        statuses = []
        for number in range(5):
            headers = {"X-Forwarded-For": f"198.51.100.{number}, 203.0.113.7"}
            body = {"username": f"nobody{number}", "password": PASSWORD}
            statuses.append(httpx.post(f"{server.url}/login", json=body, headers=headers).status_code)
    assert statuses == [401, 401, 401, 429, 429]


@pytest.mark.parametrize("wrong", ["*", "10.0.0.1/8", "proxy.internal", "10.0.0.0/8,all"])
def test_what_is_no_network_is_refused_at_the_start(wrong: str):
    """uvicorn would trust every peer (`*`), or none, without a warning."""
    with pytest.raises(StartupError, match="SESSIONAPI_TRUSTED_PROXIES"):
        load({"_env_file": None, "trusted_proxies": wrong})
    assert Settings(_env_file=None, trusted_proxies="10.0.0.0/8, ::1").trusted_proxies == (
        "10.0.0.0/8",
        "::1",
    )
