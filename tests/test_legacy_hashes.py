"""Hashes of other systems are verified and upgraded at the first login, and unsupported ones are reported.

The vectors were made by the systems themselves where a registry has them: Django 5.2, Werkzeug 3.1,
better-auth (@better-auth/utils 0.5), wordpress-hash-node, and PHP 8.2 with the two lines of WordPress 6.8.
Those of Ory, Keycloak and ASP.NET have the layout that these systems write, around the functions of
@noble/hashes.
"""

import json
import random
import time
from pathlib import Path

import pytest
from passlib.hash import phpass, sha512_crypt
from passlib.hash import scrypt as passlib_scrypt

from sessionapi.errors import ValidationFailed
from sessionapi.users import legacy_hashes
from tests.support.api_client import PASSWORD, refusal
from tests.support.app import Running
from tests.support.commands import Commands
from tests.test_passwords import LEGACY

VECTORS: dict[str, str] = json.loads((Path(__file__).parent / "legacy_hashes.json").read_text())
WRONG = "wrong horse battery"
BCRYPT = "2XaCSIdEAKkj8d7IyAvOde6tDde1yeC7S9.GZPwRT92zkoSTYpjaO"
UPGRADED = "$argon2id$v=19$m=8,t=1,p=1$"


@pytest.mark.parametrize("system", VECTORS)
async def test_a_hash_of_another_system_is_verified_and_upgraded_at_the_first_login(
    service: Running, system: str
):
    """Fails without the reader of this form in legacy_hashes.py."""
    await service.container.accounts.add("ada", None, password=None, hashed=VECTORS[system])
    before = service.rows("select password_hash from users")
    for wrong in (WRONG, PASSWORD + "!", ""):
        answer = await service.client.post("/login", json={"username": "ada", "password": wrong})
        assert refusal(answer)[:2] == (401, "invalid_credentials")
    assert service.rows("select password_hash from users") == before
    await service.log_in("ada", PASSWORD)
    [(after,)] = service.rows("select password_hash from users")
    assert after.startswith(UPGRADED)
    await service.log_in("ada", PASSWORD)
    assert service.rows("select password_hash from users") == [(after,)]


async def test_better_auth_hashed_passwords_in_nfkc(service: Running):
    """Fails without NFKC in the reader of better-auth. The vector is of "ﬁancée horse battery"."""
    hashed = (
        "298e906d62042a5e27dbd8fb498ff7e7:a8afbbdf0f6c74eec0406e687d0f8635cc7bc8f8181aeb67406f662253a18ae2"
        "ea1d0f68163dc0b0926812e584b43efc71d09260da331a9333ff9f41725c73ae"
    )
    await service.container.accounts.add("ada", None, password=None, hashed=hashed)
    await service.log_in("ada", "ﬁancée horse battery")


async def test_wordpress_trimmed_passwords_before_it_hashed_them(service: Running):
    """Fails without PHP's trim, which keeps some kinds of spaces. The vector is of " spaces around "."""
    hashed = "$wp$2y$04$aKhZUi3fXTADGOzJQoWfUuSGiaVkNqxnkZVK/kCFE5iyVemtWvOxK"
    await service.container.accounts.add("ada", None, password=None, hashed=hashed)
    assert (
        await service.client.post("/login", json={"username": "ada", "password": WRONG})
    ).status_code == 401
    await service.log_in("ada", "  spaces around  ")
    await service.container.accounts.add(
        "bob", None, password=None, hashed=phpass.using(rounds=7).hash("in WordPress")
    )
    await service.log_in("bob", " in WordPress ")


TOO_EXPENSIVE = {
    "Werkzeug scrypt": f"scrypt:{2**30}:8:1$saltsalt${'ab' * 64}",
    "Django scrypt": f"scrypt${2**24}$saltsalt$8$1${'A' * 86}==",
    "scrypt of Ory": f"$scrypt$ln={2**20},r=8,p=1$c2FsdHNhbHQ${'A' * 43}",
    "scrypt of passlib": f"$scrypt$ln=30,r=8,p=1$c2FsdHNhbHQ${'A' * 43}",
    "scrypt with a large r": f"scrypt:1024:100000:1$saltsalt${'ab' * 64}",
    "scrypt with a large p": f"scrypt:16384:8:9999$saltsalt${'ab' * 64}",
    "scrypt of crypt": "$7$" + "S" + "6..../....SodiumChloride$kBGj9fHznVYFQMEn/qDCfrDevf9YDtcDdKvEqHJLV8D",
    "Django PBKDF2": f"pbkdf2_sha256$999999999$saltsalt${'A' * 43}=",
    "Werkzeug PBKDF2": f"pbkdf2:sha1:999999999$saltsalt${'ab' * 20}",
    "PBKDF2 of Ory": f"$pbkdf2-sha256$i=5000000,l=64$c2FsdHNhbHQ${'A' * 86}",
    "PBKDF2 of ASP.NET": "AQAAAAJ/////AAAAEAswVXqfxOkOM1h9osfsETbs0e+6Zdbe6w239BTv+ZWXnz0sb5Edwkgs20fLiVUG",
    "bcrypt": f"$2b$31${BCRYPT}",
    "bcrypt of Django": f"bcrypt$$2b$20${BCRYPT}",
    "WordPress": f"$wp$2y$31${BCRYPT}",
    "sha512_crypt": f"$6$rounds=999999999$saltsalt${'a' * 86}",
    "phpass": "$P$S" + "7ZLNCd5G/P1rIeZLNlmFunbDKT8R90",
    "Argon2, memory": f"$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ${'A' * 43}",
    "Argon2, passes": f"$argon2id$v=19$m=65536,t=99999,p=1$c2FsdHNhbHQ${'A' * 43}",
    "Argon2 of Django": f"argon2$argon2id$v=19$m=4194304,t=1,p=1$c2FsdHNhbHQ${'A' * 43}",
}


@pytest.mark.parametrize("form", TOO_EXPENSIVE)
async def test_a_hash_that_costs_too_much_is_refused_at_import_and_at_login(service: Running, form: str):
    """Fails without `_bound`: one login took the memory or the time of all others."""
    with pytest.raises(
        ValidationFailed, match=r"This looks like .* too expensive: [0-9]+ .*, at most [0-9]+"
    ):
        await service.container.accounts.add("ada", None, password=None, hashed=TOO_EXPENSIVE[form])
    await service.sign_up()
    async with service.container.store.begin() as tx:  # stored by versions before this bound
        user = await tx.users.by_name("ada")
        await tx.users.bump_credential_version(user.id, password_hash=TOO_EXPENSIVE[form])
    began = time.process_time()
    answer = await service.client.post("/login", json={"username": "ada", "password": PASSWORD})
    assert refusal(answer)[:2] == (401, "invalid_credentials")
    assert time.process_time() - began < 1, (
        "seconds of this process's processor time: none was spent on the hash"
    )


KEYCLOAK = (
    '{"secretData": {"value": "AA==", "salt": "AA=="}, '
    '"credentialData": {"hashIterations": %s, "algorithm": "%s"}}'
)
MALFORMED = [
    "$P$",
    "$H$",
    json.dumps(
        {
            "secretData": '{"salt": "c2FsdA==", "value": "dmFsdWU="}',
            "credentialData": '{"algorithm": [], "hashIterations": 5}',
        }
    ),
    "scrypt:32768:8:1$saltsalt$",
    "scrypt:32768:8:1$saltsalt$abab",
    "scrypt:32768:8:1$saltsalt$" + "xy" * 64,
    "scrypt:32768:8:1$$" + "ab" * 64,
    "scrypt:32767:8:1$saltsalt$" + "ab" * 64,
    "scrypt:32768:0:1$saltsalt$" + "ab" * 64,
    "scrypt:0:8:1$saltsalt$" + "ab" * 64,
    "scrypt:1:8:1$saltsalt$" + "ab" * 64,
    "scrypt:-2:8:1$saltsalt$" + "ab" * 64,
    "scrypt$16384$salt$8$5$",
    "scrypt$16384$salt$8$5$!!!!",
    "$scrypt$ln=16385,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43,
    "$scrypt$ln=abc,r=8,p=1$c2FsdHNhbHQ$" + "A" * 43,
    "$scrypt$c2FsdHNhbHQ$" + "A" * 43,
    "pbkdf2:sha256$saltsalt$" + "ab" * 32,
    "pbkdf2:sha256:1000$saltsalt$" + "ab" * 31,
    "pbkdf2:md5:1000$saltsalt$" + "ab" * 16,
    "pbkdf2_sha256$0$saltsalt$" + "A" * 43 + "=",
    "pbkdf2_sha256$1000$saltsalt$",
    "$pbkdf2-sha256$i=1000,l=0$c2FsdHNhbHQ$A",
    "$pbkdf2-sha256$i=1000,l=31$c2FsdHNhbHQ$" + "A" * 43,
    "$pbkdf2-sha256$aaaa$c2FsdHNhbHQ$" + "A" * 43,
    "$pbkdf2-sha256$1000$c2FsdHNhbHQ$" + "A" * 10,
    "AQAAAAIAAAPoAAAAEAABAgMEBQYHCAkKCwwNDg8AAAAAAAAAAAAA",
    "AQAAAAkAAAPoAAAAEAswVXqfxOkOM1h9osfsETbs0e+6Zdbe6w239BTv+ZWXnz0sb5Edwkgs20fLiVUGQA==",
    "AQAAAAIAAAPo/////wswVXqfxOkOM1h9osfsETbs0e+6Zdbe6w239BTv+ZWXnz0sb5Edwkgs20fLiVUGQA==",
    "AQAAAAIAAAAAAAAAEAswVXqfxOkOM1h9osfsETbs0e+6Zdbe6w239BTv+ZWXnz0sb5Edwkgs20fLiVUGQA==",
    "$2b$12$cut",
    "$2b$99$" + BCRYPT,
    "$wp$argon2",
    "$wp$2y$10$cut",
    "$P$B7ZLNCd5G",
    "$P$!7ZLNCd5G/P1rIeZLNlmFunbDKT8R90",
    "$6$saltsalt$cut",
    "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$YWJj",
    "$argon2id$v=19$m=8,t=1,p=4$c2FsdHNhbHQ$" + "A" * 43,
    "$argon2id$v=19$m=8,t=0,p=1$c2FsdHNhbHQ$" + "A" * 43,
    "$argon2id$" + "x" * 600,
    '{"secretData": "{}", "credentialData": "{}"}',
    '{"secretData": 1, "credentialData": []}',
    '{"secretData": "{\\"value\\": \\"\\", \\"salt\\": \\"\\"}", "credentialData": '
    '"{\\"hashIterations\\": 1e999, \\"algorithm\\": \\"pbkdf2\\"}"}',
    KEYCLOAK % ("-1", "pbkdf2"),
    KEYCLOAK % ("1", "argon2"),
    KEYCLOAK % ("1", "x"),
]


@pytest.mark.parametrize("hashed", MALFORMED, ids=lambda text: text[:40])
async def test_a_malformed_hash_is_refused_with_the_form_that_it_seems_to_have(service: Running, hashed: str):
    """Fails without its check: an empty digest equals that of every password."""
    with pytest.raises(ValidationFailed, match=r"^This looks like [^\n]+, but [^\n]+\.$"):
        await service.container.accounts.add("ada", None, password=None, hashed=hashed)
    assert service.rows("select count(*) from users") == [(0,)]


NAMED = {
    "$1$saltsalt$Xm9HGtKDRbh7xEBGk1RXv1": "md5-crypt",
    "$apr1$saltsalt$Xm9HGtKDRbh7xEBGk1RXv1": "Apache md5-crypt",
    "$y$j9T$salt$hash": "yescrypt",
    "$S$D1234567890": "Drupal 7 SHA-512",
    "5f4dcc3b5aa765d61d8327deb882cf99": "MD5 or NTLM in hexadecimal",
    "5baa61e4c9b93f3f0682250b6cf8331b7ee68fd8": "SHA-1 in hexadecimal",
    "ab" * 32: "SHA-256 in hexadecimal",
    "AB" * 64: "SHA-512 in hexadecimal",
    "{SSHA}JFZFs0oHzxbMwkSJmYVeI8MnTDy/276a": "an LDAP hash",
    "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19": "a MySQL hash",
    "SCRAM-SHA-256$4096:salt$stored:server": "SCRAM",
    "md55f4dcc3b5aa765d61d8327deb882cf99": "PostgreSQL MD5",
    "md5$salt$5f4dcc3b5aa765d61d8327deb882cf99": "an unstretched Django hash",
    "sha256$salt$5f4dcc3b5aa765d61d8327deb882cf99": "an unstretched Werkzeug hash",
    "$2x$12$abc": "bcrypt in the faulty variant 2x",
    "!": "a locked password",
    "rl.3StKT.4T8M": "DES crypt",
}


@pytest.mark.parametrize("hashed", NAMED)
def test_the_refusal_names_the_form_that_came_and_those_that_are_accepted(commands: Commands, hashed: str):
    """Fails without its line in legacy_hashes._OTHERS."""
    said = commands.refused("users", "add", "ada", "--hash", given=f"{hashed}\n")
    assert said.startswith(
        f"This looks like {NAMED[hashed]}, which cannot be verified here. Accepted: Argon2; bcrypt;"
    )
    assert "Keycloak" in said
    assert "better-auth" in said
    assert hashed not in said or len(hashed) < 3


def test_a_credential_of_keycloak_is_imported_as_one_line_on_the_command_line(commands: Commands):
    for name, system in (("ada", "Keycloak PBKDF2-SHA512"), ("bob", "Keycloak Argon2")):
        done = commands("users", "add", name, "--hash", given=f"{VECTORS[system]}\n")
        assert done.exit_code == 0, done.stderr
    for text in ("plain", "", "😀", "a" * 600, "{", "[]", "null", "{}"):
        assert commands.refused("users", "add", "eve", "--hash", given=f"{text}\n")


@pytest.mark.filterwarnings("ignore::passlib.exc.PasslibHashWarning")
def test_no_mutated_hash_does_more_than_be_unreadable():
    """Every hash that is accepted can be verified, within the bounds. The seeds are all vectors."""
    choose = random.Random(17)
    seeds = [*VECTORS.values(), *TOO_EXPENSIVE.values(), *MALFORMED, passlib_scrypt.using(rounds=4).hash("x")]
    seeds += [sha512_crypt.using(rounds=1000).hash("x"), *(make(PASSWORD) for make in LEGACY.values())]
    for _ in range(20_000):
        text = choose.choice(seeds)
        for _ in range(choose.randint(1, 3)):
            at = choose.randrange(len(text) + 1)
            piece = choose.choice(["", "$", ":", "=", ",", "0", "9", "-", "A", "é", "\0", "{", '"', "\ud800"])
            text = text[:at] + piece + text[at + choose.choice((0, 1, 1, 4)) :]
        try:
            legacy_hashes.read(text)
        except legacy_hashes.UnreadableHash as unreadable:
            assert str(unreadable).startswith("This ")
