"""Names by UAX 31, and no invisible character in any text that is shown to people."""

import unicodedata

import pytest

from sessionapi import identifiers
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running
from tests.support.commands import Commands

ACCEPTED = {
    "Hindi": "हिन्दी",
    "Thai": "ไทย",
    "Thai with SARA AM": "น้ำ",
    "Tamil": "தமிழ்",
    "pointed Hebrew": "שָׁלוֹם",
    "Bengali": "বাংলা",
    "Burmese": "မြန်မာ",
    "vocalised Arabic": "مُحَمَّد",
    "Khmer": "ភាសាខ្មែរ",
    "decomposed Vietnamese": unicodedata.normalize("NFD", "Việt"),
    "Georgian": "ქართული",
    "Chinese": "中文",
    "digits first": "007",
    "ASCII signs": "+@.-_",
    "150 characters": "é" * 150,
}
INVISIBLE = [
    "\u00ad",
    "\u034f",
    "\u061c",
    "\u115f",
    "\u1160",
    "\u17b4",
    "\u17b5",
    "\u180b",
    "\u180e",
    "\u180f",
    "\u200b",
    "\u200c",
    "\u200d",
    "\u200e",
    "\u202a",
    "\u202e",
    "\u2060",
    "\u2064",
    "\u2065",
    "\u2066",
    "\u206f",
    "\u3164",
    "\ufe00",
    "\ufe0f",
    "\ufeff",
    "\uffa0",
    "\ufff0",
    "\ufff9",
    "\U0001bca0",
    "\U0001d173",
    "\U000e0000",
    "\U000e0001",
    "\U000e0041",
    "\U000e0100",
    "\U000e0fff",
    "\U000110bd",
    "\u0000",
    "\u0007",
    "\u007f",
    "\u009b",
    "\u2028",
    "\u2029",
    "\u0600",
]
NOT_A_NAME = [
    "",
    " ",
    "\u3000\u2028\t",
    "ada lovelace",
    "ada\u00a0lovelace",
    "ada/..",
    "ada:bob",
    "<ada>",
    "🐎",
    "½",
    "﷽",
    "\u0301ada",
    "\u093eada",
    "\u0e31",
    " \u0301ada",
    "\u00a8ada",
    "ada.\u0301",
    "ada@\u0338",
    "\u20dd",
    "a\u20dd",
    "x" * 151,
    "ﬃ" * 51,
]


@pytest.mark.parametrize("language", ACCEPTED)
@pytest.mark.requirement("names")
async def test_names_of_every_script_are_accepted_as_their_writers_spell_them(
    service: Running, language: str
):
    """Fails without XID_Continue in `identifiers`: combining marks were refused."""
    name = ACCEPTED[language]
    user = (await service.sign_up(name))["user"]
    assert user["username"] == unicodedata.normalize("NFKC", name)
    for spelled in (name, unicodedata.normalize("NFD", name), name.upper(), f"\u3000{name} \u2028\r\n"):
        assert (await service.log_in(spelled))["user"]["id"] == user["id"], ascii(spelled)


@pytest.mark.parametrize("sign", INVISIBLE, ids=ascii)
@pytest.mark.requirement("names")
async def test_names_with_an_invisible_character_are_refused(service: Running, sign: str):
    """Fails without `invisible` in `identifiers.parse_name`, both at sign-up and by PATCH /me."""
    tokens = await service.sign_up()
    for name in (f"a{sign}da", f"ada{sign}x", f"हि{sign}न्दी"):
        answer = await service.client.post("/signup", json={"username": name, "password": PASSWORD})
        assert refusal(answer)[:2] == (422, "validation_failed")
        assert answer.json()["errors"][0]["code"] == "invalid_username"
        changed = await service.send("PATCH", "/me", tokens, {"username": name})
        assert changed.json()["errors"][0]["code"] == "invalid_username"
    assert service.rows("select username from users") == [("ada",)]


@pytest.mark.parametrize("sign", INVISIBLE, ids=ascii)
@pytest.mark.requirement("names")
async def test_names_of_devices_and_e_mail_addresses_with_an_invisible_character_are_refused(
    service: Running, sign: str
):
    """Fails without `_visible` in the schemas of `web/schemas.py`."""
    tokens = await service.sign_up()
    bodies = {"username": "bob", "password": PASSWORD}
    device, email = f"my{sign}laptop", f"a{sign}da@example.com"
    answers = [
        await service.client.post("/signup", json={**bodies, "device_name": device}),
        await service.client.post("/signup", json={**bodies, "email": email}),
        await service.client.post("/signup", json={**bodies, "email": f"ada@exam{sign}ple.com"}),
        await service.client.post(
            "/login", json={"username": "ada", "password": PASSWORD, "device_name": device}
        ),
        await service.send("PATCH", "/sessions/current", tokens, {"device_name": device}),
        await service.send("PATCH", "/me", tokens, {"email": email}),
    ]
    assert [refusal(answer)[:2] for answer in answers] == [(422, "validation_failed")] * len(answers)
    assert service.rows("select username, email from users") == [("ada", None)]


@pytest.mark.parametrize("name", NOT_A_NAME, ids=ascii)
@pytest.mark.requirement("names")
async def test_names_that_are_not_identifiers_are_refused(service: Running, name: str):
    answer = await service.client.post("/signup", json={"username": name, "password": PASSWORD})
    assert refusal(answer)[:2] == (422, "validation_failed")
    assert answer.json()["errors"][0]["field"] == "username"
    login = await service.client.post("/login", json={"username": name, "password": PASSWORD})
    assert refusal(login)[:2] == (401, "invalid_credentials")


@pytest.mark.requirement("names")
async def test_names_of_devices_taken_from_a_user_agent_hold_no_invisible_character(service: Running):
    """Fails without the filter in `user_agents.name`: a client sends any text as the family of an app."""
    await service.sign_up()
    sent = "My\u00adAp\u0085p/1.0 CFNetwork/1474 Darwin/23.0.0".encode("latin-1")
    answer = await service.client.post(
        "/login", json={"username": "ada", "password": PASSWORD}, headers={b"User-Agent": sent}
    )
    listed = await service.get("/sessions", answer.json())
    shown = listed.json()["items"][0]["device_name"]
    assert identifiers.invisible(shown) is None, ascii(shown)
    assert shown == "MyApp on iOS"


@pytest.mark.requirement("names")
def test_names_for_service_tokens_and_brands_follow_the_rule_too(commands: Commands, monkeypatch):
    """Fails without `invisible` in ServiceTokens.add and in Settings.brand_name."""
    for sign in ("\u3164", "\u115f", "\ufe0f", "\u202e", "\u2028"):
        assert "name" in commands.refused("service-tokens", "add", f"ord{sign}ers")
        assert "email" in commands.refused("users", "add", "ada", "--email", f"a{sign}@b.c", given=PASSWORD)
        monkeypatch.setenv("SESSIONAPI_BRAND_NAME", f"Ac{sign}me")
        assert "BRAND_NAME" in commands.refused("users", "list")
        monkeypatch.delenv("SESSIONAPI_BRAND_NAME")
