"""The display name of a device without a name comes from its User-Agent, whatever that contains."""

import os
import random

import pytest

from sessionapi import identifiers
from sessionapi.sessions import user_agents
from tests.support.api_client import PASSWORD
from tests.support.app import Running

MUTATED = 20_000 if "SESSIONAPI_PROVE" in os.environ else 2_000
RAISES = "Mozilla/5.0 (Linux; Android 4;  )"
"""A rule of ua-parser matches this without its group, and the library raises ValueError."""
LIBRARIES = {
    "Dart/3.1 (dart:io)": "Dart",
    "Java/17.0.1": "Java",
    "Java-http-client/17.0.2": "Java",
    "Apache-HttpClient/4.5.13 (Java/17)": "Apache-HttpClient",
    "python-requests/2.31.0": "Python Requests",
    "python-httpx/0.27.0": "Python HTTPX",
    "Python/3.11 aiohttp/3.9.1": "Python aiohttp",
    "Python-urllib/3.11": "Python-urllib",
    "python-urllib3/2.0.7": "Python urllib3",
    "Go-http-client/1.1": "Go-http-client",
    "Go-http-client/2.0": "Go-http-client",
    "okhttp/4.9.3": "okhttp",
    "curl/8.5.0": "curl",
    "Wget/1.21.3": "Wget",
    "node": "Node.js",
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0": "Firefox on Linux",
}
SEEDS = [
    RAISES,
    *LIBRARIES,
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)",
    "Mozilla/5.0 (Linux; Android 13; SM-S918B) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0 Mobile",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/119.0 Edg/119.0",
    "Opera/9.80 (Android; Opera Mini/36.2.2254/119.132; U; id) Presto/2.12.423 Version/12.16",
    "MyApp/1 CFNetwork/1474 Darwin/23.0.0",
    "Dalvik/2.1.0 (Linux; U; Android 13; Pixel 6 Build/TQ3A)",
]
PIECES = [
    *" ;/()_,.:+-[]{}\\\t\"'<>=0123456789",
    "Android",
    "Linux",
    "Mozilla/5.0",
    "Build/",
    "  )",
    ";  ",
    "U; ",
    "like Gecko",
    "Bot",
    "\u00ad",
    "\u0085",
    "\u00e9",
]


async def agent_logs_in(service: Running, user_agent: bytes) -> str:
    body = {"username": "ada", "password": PASSWORD}
    answer = await service.client.post("/login", json=body, headers={b"User-Agent": user_agent})
    assert answer.status_code == 200, answer.text
    listed = (await service.get("/sessions", answer.json())).json()["items"]
    return next(each["device_name"] for each in listed if each["current"])


async def test_a_user_agent_that_makes_the_library_raise_is_an_unknown_device(service: Running):
    """Fails without the `except` in `user_agents._browser_and_system`: the login was a 500."""
    await service.sign_up()
    assert await agent_logs_in(service, RAISES.encode()) == user_agents.UNKNOWN
    assert await agent_logs_in(service, b"\xff\xfe\xad\x85 (((;;") == user_agents.UNKNOWN
    assert await agent_logs_in(service, b"Mozilla/5.0 (Linux; Android 4;  ) " * 100) == user_agents.UNKNOWN


@pytest.mark.parametrize("user_agent", LIBRARIES)
async def test_http_clients_of_languages_are_named(service: Running, user_agent: str):
    """Fails without its line in `user_agents._LIBRARIES`, or in the database of ua-parser."""
    await service.sign_up()
    assert await agent_logs_in(service, user_agent.encode()) == LIBRARIES[user_agent]


@pytest.mark.prove
def test_no_mutated_user_agent_raises():
    """20,000 inputs with SESSIONAPI_PROVE, 2,000 otherwise."""
    choose = random.Random(17)
    names = {user_agents.name(mutated(choose)) for _ in range(MUTATED)}
    assert user_agents.UNKNOWN in names
    assert len(names) > 100
    for name in names:
        assert 0 < len(name) <= 100
        assert identifiers.invisible(name) is None, ascii(name)


def mutated(choose: random.Random) -> str:
    text = choose.choice(SEEDS)
    for _ in range(choose.randint(1, 6)):
        at = choose.randrange(len(text) + 1)
        until = min(len(text), at + choose.choice((0, 0, 1, 3, 20)))
        text = text[:at] + "".join(choose.choices(PIECES, k=choose.randint(0, 3))) + text[until:]
    return text[:512]
