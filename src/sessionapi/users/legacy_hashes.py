"""Password hashes of other systems: parse them once, limit their cost, and verify them.

Each reader handles one format. It returns None for text in another format. It raises UnreadableHash for a
hash in its format that is truncated, malformed, or so expensive that one login would use up the memory or the
time of all others. The limits apply both when a hash is imported and when it is verified.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from argon2 import extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError
from argon2.low_level import verify_secret
from passlib.hash import (
    bcrypt,
    bcrypt_sha256,
    django_bcrypt_sha256,
    phpass,
    scrypt,
    sha256_crypt,
    sha512_crypt,
)

ACCEPTED = (
    "Argon2; bcrypt; scrypt of passlib, Django, Werkzeug, Ory and better-auth; PBKDF2 of passlib, Django, "
    "Werkzeug, Keycloak, Ory and ASP.NET Identity; sha256_crypt and sha512_crypt; phpass ($P$, $H$); "
    "WordPress ($wp$)"
)
MIB = 1024 * 1024
MAX_SCRYPT_MEMORY = 128 * MIB
"""Bytes, 128·N·r. This is the strongest setting in OWASP's Password Storage Cheat Sheet (N=2^17, r=8)."""
MAX_SCRYPT_WORK = 2**21
"""N·r·p. This is twice the strongest setting in that sheet, about a second."""
MAX_ARGON2_MEMORY = 256 * 1024
"""KiB. OWASP's strongest setting has 46 MiB, argon2-cffi's default 64 MiB."""
MAX_ARGON2_WORK = 1024 * 1024
"""KiB times passes."""
MAX_ARGON2_LANES = 16
MAX_PBKDF2_WORK = 5_000_000
"""Iterations times digest blocks, about two seconds. Django 6.0 uses 1.2 million."""
MAX_BCRYPT_COST = 16
MAX_CRYPT_ROUNDS = 1_000_000
"""Rounds of sha256_crypt and sha512_crypt; passlib's default is 656,000."""
MAX_PHPASS_COST = 16
"""Binary logarithm of the rounds. WordPress uses 13. The loop is in Python, so it blocks all other
threads."""
MIN_DIGEST = 16
"""Bytes. An empty digest would match every password."""
_BCRYPT_BYTES = 72
"""Bytes of a password that bcrypt uses. The library refuses longer ones; the systems that the hashes come
from truncate them."""
_PHP_SPACE = " \n\r\t\v\0"
"""Characters that PHP's `trim` removes, because WordPress trims passwords."""
_DIGESTS = {"sha1": 20, "sha224": 28, "sha256": 32, "sha384": 48, "sha512": 64}

Verify = Callable[[str], bool]


class UnreadableHash(ValueError):
    """A hash that cannot be verified here. The message names the format and the error, never the hash."""


@dataclass(frozen=True, slots=True)
class LegacyHash:
    """A supported hash. `text` is the form to store."""

    text: str
    verify: Verify


def read(text: str) -> LegacyHash:
    """Parse a hash in one of the accepted formats, or raise UnreadableHash."""
    stored = _from_keycloak(text) or text
    for reader in _READERS if stored.isascii() else ():
        verify = reader(stored)
        if verify is not None:
            return LegacyHash(stored, verify)
    looks_like = next((name for pattern, name in _OTHERS if re.fullmatch(pattern, text, re.DOTALL)), None)
    seen = f"This looks like {looks_like}, which" if looks_like else "This hash has an unknown format, which"
    raise UnreadableHash(f"{seen} cannot be verified here. Accepted: {ACCEPTED}.")


def _from_keycloak(text: str) -> str | None:
    """Return the PHC form of a Keycloak credential, which is one JSON object of a realm export.

    `secretData` and `credentialData` are JSON strings in an export, and objects in some tools.
    """
    if not text.startswith("{") or "secretData" not in text:
        return None
    form = "a Keycloak credential"
    try:
        credential = json.loads(text)
        secret, data = _object(credential["secretData"]), _object(credential["credentialData"])
        salt, value = _unpadded(secret["salt"]), _unpadded(secret["value"])
        algorithm, iterations = str(data["algorithm"]), int(data["hashIterations"])
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError):
        raise _malformed(form, "it needs secretData and credentialData, as in a realm export") from None
    if algorithm == "argon2":
        return _argon2_of_keycloak(data, iterations, salt, value)
    names = {"pbkdf2": "sha1", "pbkdf2-sha256": "sha256", "pbkdf2-sha512": "sha512"}
    if algorithm not in names:
        raise _malformed(form, "its algorithm is not argon2, pbkdf2, pbkdf2-sha256 or pbkdf2-sha512")
    return f"$pbkdf2-{names[algorithm]}$i={iterations},l={len(_base64(value, form))}${salt}${value}"


def _argon2_of_keycloak(data: Mapping[str, Any], iterations: int, salt: str, value: str) -> str:
    try:
        more = {name: values[0] for name, values in data["additionalParameters"].items()}
        kind, memory, lanes = str(more["type"]), int(more["memory"]), int(more["parallelism"])
        version = {"1.0": 16, "1.3": 19}[more.get("version", "1.3")]
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError, IndexError):
        raise _malformed("a Keycloak Argon2 credential", "its additionalParameters are incomplete") from None
    return f"$argon2{kind}$v={version}$m={memory},t={iterations},p={lanes}${salt}${value}"


def _object(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def _unpadded(text: str) -> str:
    return text.rstrip("=")


def _argon2(text: str) -> Verify | None:
    """Parse Argon2 in the PHC form, with or without Django's prefix."""
    if not text.startswith(("$argon2", "argon2$argon2")):
        return None
    own = "$" + text.removeprefix("$").removeprefix("argon2$")
    form = "Argon2"
    try:
        found = extract_parameters(own)
    except (InvalidHashError, ValueError, KeyError):
        raise _malformed(form) from None
    _bound(form, found.memory_cost, MAX_ARGON2_MEMORY, "KiB of memory")
    _bound(form, found.memory_cost * found.time_cost, MAX_ARGON2_WORK, "KiB times passes")
    _bound(form, found.parallelism, MAX_ARGON2_LANES, "lanes")
    whole = found.hash_len >= MIN_DIGEST and found.salt_len >= 8 and found.time_cost >= 1
    if not whole or not 1 <= found.parallelism <= found.memory_cost // 8:
        raise _malformed(form)

    def verify(password: str) -> bool:
        try:
            return verify_secret(own.encode(), password.encode(), found.type)
        except VerificationError:
            return False

    return verify


def _bcrypt(text: str) -> Verify | None:
    """Parse bcrypt, with or without Django's prefix.

    As in the original systems, every password with the same first 72 bytes matches.
    """
    own = text.removeprefix("bcrypt$")
    if not re.match(r"\$2[aby]?\$", own):
        return None
    _rounds("bcrypt", bcrypt, own, MAX_BCRYPT_COST)
    return lambda password: bool(bcrypt.verify(password.encode()[:_BCRYPT_BYTES], own))


def _bcrypt_sha256(text: str) -> Verify | None:
    """Parse bcrypt over SHA-256, as written by passlib and Django."""
    own = {"$bcrypt-sha256$": bcrypt_sha256, "bcrypt_sha256$": django_bcrypt_sha256}
    handler = next((each for prefix, each in own.items() if text.startswith(prefix)), None)
    if handler is None:
        return None
    _rounds("bcrypt_sha256", handler, text, MAX_BCRYPT_COST)
    return lambda password: bool(handler.verify(password, text))


def _wordpress(text: str) -> Verify | None:
    """Parse WordPress 6.8 and later: bcrypt over the Base64 of an HMAC-SHA-384 of the trimmed password."""
    if not text.startswith("$wp$"):
        return None
    own = text.removeprefix("$wp")
    if not own.startswith("$2y$"):
        raise _malformed("WordPress ($wp$)")
    _rounds("WordPress ($wp$)", bcrypt, own, MAX_BCRYPT_COST)

    def verify(password: str) -> bool:
        trimmed = password.strip(_PHP_SPACE).encode()
        return bool(bcrypt.verify(base64.b64encode(hmac.digest(b"wp-sha384", trimmed, "sha384")), own))

    return verify


def _phpass(text: str) -> Verify | None:
    """Parse the portable hashes of phpass. WordPress used to trim the password first; phpBB did not."""
    if not text.startswith(("$P$", "$H$")):
        return None
    _rounds("phpass", phpass, text, MAX_PHPASS_COST)

    def verify(password: str) -> bool:
        spellings = dict.fromkeys((password, password.strip(_PHP_SPACE)))
        return any(phpass.verify(spelling, text) for spelling in spellings)

    return verify


def _crypt(text: str) -> Verify | None:
    """Parse sha256_crypt and sha512_crypt."""
    handler = {"$5$": sha256_crypt, "$6$": sha512_crypt}.get(text[:3])
    if handler is None:
        return None
    _rounds(handler.name, handler, text, MAX_CRYPT_ROUNDS)
    return lambda password: bool(handler.verify(password, text))


def _pbkdf2(text: str) -> Verify | None:
    """Parse PBKDF2 of passlib (`$rounds$`) and of Ory (`$i=rounds,l=length$`), also used for Keycloak."""
    if not text.startswith("$pbkdf2"):
        return None
    form = "PBKDF2"
    found = re.fullmatch(
        r"\$pbkdf2(?:-(sha1|sha256|sha512))?\$(?:i=([0-9]{1,9}),l=([0-9]{1,3})|([0-9]{1,9}))\$([^$]+)\$([^$]+)",
        text,
    )
    if not found:
        raise _malformed(form)
    name, of_ory, length, of_passlib, salt, digest = found.groups()
    expected = int(length) if length else _DIGESTS[name or "sha1"]
    decoded = _base64(digest, form)
    if len(decoded) != expected:
        raise _malformed(form, f"its digest has {len(decoded)} bytes, not {expected}")
    return _derived_by_pbkdf2(form, name or "sha1", int(of_ory or of_passlib), _base64(salt, form), decoded)


def _pbkdf2_of_django(text: str) -> Verify | None:
    if not text.startswith("pbkdf2_"):
        return None
    form = "Django PBKDF2"
    found = re.fullmatch(r"pbkdf2_(sha1|sha256|sha512)\$([0-9]{1,9})\$([^$]+)\$([^$]+)", text)
    digest = _base64(found[4], form) if found else b""
    if not found or len(digest) != _DIGESTS[found[1]]:
        raise _malformed(form)
    return _derived_by_pbkdf2(form, found[1], int(found[2]), found[3].encode(), digest)


def _pbkdf2_of_werkzeug(text: str) -> Verify | None:
    if not text.startswith("pbkdf2:"):
        return None
    form = "Werkzeug PBKDF2"
    found = re.fullmatch(rf"pbkdf2:({'|'.join(_DIGESTS)}):([0-9]{{1,9}})\$([^$]+)\$([0-9a-f]+)", text)
    digest = _hex(found[4], form) if found else b""
    if not found or len(digest) != _DIGESTS[found[1]]:
        raise _malformed(form)
    return _derived_by_pbkdf2(form, found[1], int(found[2]), found[3].encode(), digest)


def _pbkdf2_of_aspnet(text: str) -> Verify | None:
    """Parse ASP.NET Core Identity, versions 2 and 3: Base64 of a marker byte and the fields it announces."""
    if not re.fullmatch(r"A[A-Q][A-Za-z0-9+/]{46,}={0,2}", text):
        return None
    form = "ASP.NET Identity"
    raw = _base64(text, form)
    if raw[0] == 0 and len(raw) == 49:
        return _derived_by_pbkdf2(form, "sha1", 1000, raw[1:17], raw[17:])
    if raw[0] != 1:
        return None
    prf, iterations, salt_size = (int.from_bytes(raw[at : at + 4], "big") for at in (1, 5, 9))
    name = {0: "sha1", 1: "sha256", 2: "sha512"}.get(prf)
    salt, digest = raw[13 : 13 + salt_size], raw[13 + salt_size :]
    if name is None or salt_size < 16 or len(salt) != salt_size:
        raise _malformed(form)
    return _derived_by_pbkdf2(form, name, iterations, salt, digest)


def _derived_by_pbkdf2(form: str, name: str, iterations: int, salt: bytes, digest: bytes) -> Verify:
    if iterations < 1 or not salt or not MIN_DIGEST <= len(digest) <= 128:
        raise _malformed(form)
    blocks = -(-len(digest) // _DIGESTS[name])
    _bound(form, iterations * blocks, MAX_PBKDF2_WORK, "iterations times blocks")

    def verify(password: str) -> bool:
        derived = hashlib.pbkdf2_hmac(name, password.encode(), salt, iterations, len(digest))
        return hmac.compare_digest(derived, digest)

    return verify


def _scrypt(text: str) -> Verify | None:
    """Parse scrypt as written by passlib (`ln` is a logarithm) and Ory (`ln` is N itself)."""
    if text.startswith("$7$"):
        return _scrypt_of_crypt(text)
    if not text.startswith("$scrypt$"):
        return None
    form = "scrypt"
    found = re.fullmatch(r"\$scrypt\$ln=([0-9]{1,10}),r=([0-9]{1,6}),p=([0-9]{1,6})\$([^$]+)\$([^$]+)", text)
    if not found:
        raise _malformed(form)
    cost = int(found[1])
    return _derived_by_scrypt(
        form,
        2**cost if cost < 32 else cost,
        int(found[2]),
        int(found[3]),
        _base64(found[4], form),
        _base64(found[5], form),
    )


def _scrypt_of_crypt(text: str) -> Verify:
    form = "scrypt ($7$)"
    try:
        found = scrypt.from_string(text)
    except (ValueError, TypeError):  # TypeError: passlib raises an object that is not an exception
        raise _malformed(form) from None
    if found.checksum is None:
        raise _malformed(form)
    _bound_scrypt(form, 2 ** int(found.rounds), int(found.block_size), int(found.parallelism))
    return lambda password: bool(scrypt.verify(password, text))


def _scrypt_of_django(text: str) -> Verify | None:
    if not text.startswith("scrypt$"):
        return None
    form = "Django scrypt"
    found = re.fullmatch(r"scrypt\$([0-9]{1,10})\$([^$]+)\$([0-9]{1,6})\$([0-9]{1,6})\$([^$]+)", text)
    if not found:
        raise _malformed(form)
    n, r, p = int(found[1]), int(found[3]), int(found[4])
    return _derived_by_scrypt(form, n, r, p, found[2].encode(), _base64(found[5], form))


def _scrypt_of_werkzeug(text: str) -> Verify | None:
    if not text.startswith("scrypt:"):
        return None
    form = "Werkzeug scrypt"
    found = re.fullmatch(r"scrypt:([0-9]{1,10}):([0-9]{1,6}):([0-9]{1,6})\$([^$]+)\$([0-9a-f]+)", text)
    if not found:
        raise _malformed(form)
    n, r, p = int(found[1]), int(found[2]), int(found[3])
    return _derived_by_scrypt(form, n, r, p, found[4].encode(), _hex(found[5], form))


def _scrypt_of_better_auth(text: str) -> Verify | None:
    """Parse better-auth, which has fixed parameters.

    The salt is the hexadecimal text itself, and passwords are normalised to NFKC.
    """
    found = re.fullmatch(r"([0-9a-f]{32}):([0-9a-f]{128})", text)
    if not found:
        return None
    form = "better-auth scrypt"
    verify = _derived_by_scrypt(form, 16384, 16, 1, found[1].encode(), _hex(found[2], form))
    return lambda password: verify(unicodedata.normalize("NFKC", password))


def _derived_by_scrypt(form: str, n: int, r: int, p: int, salt: bytes, digest: bytes) -> Verify:
    if not salt or not MIN_DIGEST <= len(digest) <= 128:
        raise _malformed(form)
    _bound_scrypt(form, n, r, p)

    def verify(password: str) -> bool:
        memory = 128 * r * (n + p + 2) + MIB
        derived = hashlib.scrypt(
            password.encode(), salt=salt, n=n, r=r, p=p, maxmem=memory, dklen=len(digest)
        )
        return hmac.compare_digest(derived, digest)

    return verify


def _bound_scrypt(form: str, n: int, r: int, p: int) -> None:
    if n < 2 or n & (n - 1) or r < 1 or p < 1:
        raise _malformed(form, "N must be a power of two, and r and p at least 1")
    _bound(form, 128 * n * r, MAX_SCRYPT_MEMORY, "bytes of memory")
    _bound(form, n * r * p, MAX_SCRYPT_WORK, "N times r times p")


def _rounds(form: str, handler: Any, text: str, most: int) -> None:
    """Refuse a hash that passlib cannot parse completely, or that has too many rounds."""
    try:
        found = handler.from_string(text)
    except (ValueError, TypeError, IndexError):
        raise _malformed(form) from None
    if found.checksum is None:
        raise _malformed(form)
    _bound(form, found.rounds, most, "as the cost parameter")


def _bound(form: str, value: int, most: int, unit: str) -> None:
    if value > most:
        raise UnreadableHash(
            f"This looks like {form}, but it is too expensive: {value} {unit}, at most {most}."
        )


def _malformed(form: str, why: str = "it is truncated or malformed") -> UnreadableHash:
    return UnreadableHash(f"This looks like {form}, but {why}.")


def _base64(text: str, form: str) -> bytes:
    """Decode Base64 with or without padding, and with passlib's `.` for `+`."""
    plain = text.rstrip("=").replace(".", "+")
    try:
        return binascii.a2b_base64(plain + "=" * (-len(plain) % 4), strict_mode=True)
    except ValueError:
        raise _malformed(form) from None


def _hex(text: str, form: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        raise _malformed(form) from None


_READERS: tuple[Callable[[str], Verify | None], ...] = (
    _argon2,
    _bcrypt,
    _bcrypt_sha256,
    _wordpress,
    _phpass,
    _crypt,
    _pbkdf2,
    _pbkdf2_of_django,
    _pbkdf2_of_werkzeug,
    _pbkdf2_of_aspnet,
    _scrypt,
    _scrypt_of_django,
    _scrypt_of_werkzeug,
    _scrypt_of_better_auth,
)
_OTHERS = (
    (r"\$1\$.*|\$md5-crypt\$.*", "md5-crypt"),
    (r"\$apr1\$.*", "Apache md5-crypt"),
    (r"\$2x\$.*", "bcrypt in the faulty variant 2x"),
    (r"\$g?y\$.*", "yescrypt"),
    (r"\$S\$.*", "Drupal 7 SHA-512"),
    (r"\$sha1\$.*", "sha1-crypt"),
    (r"\$md5[,$].*", "Sun or Ory MD5"),
    (r"\$3\$.*", "NTLM"),
    (r"\$firescrypt\$.*", "Firebase scrypt"),
    (r"\$balloon.*", "Balloon"),
    (r"(md5|sha1)\$.*", "an unstretched Django hash"),
    (r"(sha1|sha256|sha512|md5)(:[a-z0-9]+)?\$.*", "an unstretched Werkzeug hash"),
    (r"md5[0-9a-f]{32}", "PostgreSQL MD5"),
    (r"SCRAM-SHA-(1|256|512)\$.*", "SCRAM"),
    (r"\{[A-Za-z0-9-]+\}.*", "an LDAP hash"),
    (r"\*[0-9A-F]{40}", "a MySQL hash"),
    (r"[0-9a-fA-F]{32}", "MD5 or NTLM in hexadecimal"),
    (r"[0-9a-fA-F]{40}", "SHA-1 in hexadecimal"),
    (r"[0-9a-fA-F]{64}", "SHA-256 in hexadecimal"),
    (r"[0-9a-fA-F]{128}", "SHA-512 in hexadecimal"),
    (r"[0-9a-f]+:[0-9a-f]+", "a salt and a digest of unknown origin"),
    (r"[!*].*", "a locked password"),
    (r"_[./0-9A-Za-z]{19}|[./0-9A-Za-z]{13}", "DES crypt"),
)
"""Unsupported formats that the error message names; the first match is used."""
