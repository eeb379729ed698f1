"""Builder of the tokens in `corpus/`: each entry lists only its differences from a valid token."""

import hashlib
import hmac
import json
import string
import tomllib
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from sessionapi.keys import keyring

CORPUS = Path(__file__).parents[1] / "corpus"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order of the curve P-256 (FIPS 186-5)."""


def entries() -> dict[str, dict[str, Any]]:
    """Return all entries, by family and reason."""
    found = {}
    for file in sorted(CORPUS.glob("*.toml")):
        for entry in tomllib.loads(file.read_text())["forged"]:
            name = f"{file.stem}: {entry['reason']}"
            assert name not in found, f"{name} is there twice"
            found[name] = entry
    return found


def encode(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


@dataclass
class Forger:
    """The most that a forger can have: a valid token, another one, and, at worst, our private key."""

    good: str
    another: str
    refresh: str
    now: int
    private_key: ec.EllipticCurvePrivateKey
    stranger: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )
    rsa_key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048))

    def __post_init__(self) -> None:
        self.h, self.p, self.s = self.good.split(".")
        self.header, self.claims = json.loads(decode(self.h)), json.loads(decode(self.p))
        self.kid = self.header["kid"]

    def forge(self, entry: Mapping[str, Any]) -> str:
        """Return the token of an entry."""
        header = encode(self._header(entry))
        payload = encode(self._payload(entry))
        if entry.get("encode_twice"):
            payload = encode(payload.encode())
        if entry.get("nested"):
            payload = encode(self.good.encode())
        signed = f"{header}.{payload}".encode()
        raw = self._sign(entry.get("key", "ours"), signed)
        signature = self._respell(entry["signature"], raw, signed) if "signature" in entry else encode(raw)
        if "text" in entry:
            names = {"h": header, "p": payload, "s": signature, "refresh": self.refresh}
            return string.Template(entry["text"].replace("$sä", "${s}ä")).substitute(
                names, sid=self.claims["sid"]
            )
        return f"{header}.{payload}.{signature}"

    def _header(self, entry: Mapping[str, Any]) -> bytes:
        if "header_hex" in entry:
            return bytes.fromhex(entry["header_hex"])
        if "header_deep" in entry:
            return deep(entry["header_deep"])
        if "header_json" in entry:
            return entry["header_json"].replace("$kid", self.kid).encode()
        changes = {name: self._value(value) for name, value in entry.get("header", {}).items()}
        removed = entry.get("remove_header", [])
        header = {name: value for name, value in {**self.header, **changes}.items() if name not in removed}
        text = json.dumps(header, separators=(",", ":"))
        return text.encode("utf-16" if entry.get("header_utf16") else "utf-8")

    def _payload(self, entry: Mapping[str, Any]) -> bytes:
        if "claims_hex" in entry:
            return bytes.fromhex(entry["claims_hex"])
        if "claims_deep" in entry:
            return deep(entry["claims_deep"])
        plain = json.dumps(self.claims, separators=(",", ":"))
        if "claims_utf16" in entry:
            return plain.encode("utf-16")
        if "claims_cut" in entry:
            return plain[: -entry["claims_cut"]].encode()
        if "claims_extra" in entry:
            return (
                plain[:-1] + "," + entry["claims_extra"].replace("$later", str(self.now + 250)) + "}"
            ).encode()
        if "claims_json" in entry:
            rest = {name: value for name, value in self.claims.items() if name != "exp"}
            text = entry["claims_json"].replace("$claims_without_exp", json.dumps(rest)[:-1])
            return text.replace("$digits", "9" * 4000).encode()
        changes = {name: self._value(value) for name, value in entry.get("claims", {}).items()}
        claims = {**self.claims, **changes}
        kept = {name: value for name, value in claims.items() if name not in entry.get("remove", [])}
        return json.dumps(kept, separators=(",", ":")).encode()

    def _value(self, value: Any) -> Any:
        """Return a value of the corpus. `@+60` is the time in 60 s, `@s` makes it a text, `@f` a fraction."""
        if not isinstance(value, str):
            return value
        for prefix, convert in {
            "@s": str,
            "@f": lambda at: at + 0.5,
            "@ms": lambda at: at * 1000,
            "@": int,
        }.items():
            if value.startswith(prefix) and value[len(prefix) :][:1] in ("+", "-"):
                return convert(self.now + int(value[len(prefix) :]))
        named: dict[str, Any] = {
            "$KID": self.kid.upper(),
            "$bare_kid": self.kid.removeprefix("key_"),
            "$long": "k" * 4000,
            "$stranger_jwk": keyring.public_jwk("mine", "ES256", self.stranger),
            "$our_jwk": keyring.public_jwk(self.kid, "ES256", self.private_key),
        }
        return named.get(value, value)

    def _sign(self, key: str, signed: bytes) -> bytes:
        if key == "ours":
            return ECAlgorithm(ECAlgorithm.SHA256).sign(signed, self.private_key)
        if key == "stranger":
            return ECAlgorithm(ECAlgorithm.SHA256).sign(signed, self.stranger)
        if key == "rsa":
            return RSAAlgorithm(RSAAlgorithm.SHA256).sign(signed, self.rsa_key)
        public = self.private_key.public_key()
        pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        secrets = {
            "hmac-pem": pem,
            "hmac-pem-stripped": pem.strip(),
            "hmac-der": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
            "hmac-jwk": json.dumps(keyring.public_jwk(self.kid, "ES256", self.private_key)).encode(),
            "hmac-point": public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint),
            "hmac-kid": self.kid.encode(),
            "hmac-empty": b"",
            "hmac-guess": b"secret",
        }
        return hmac.digest(secrets[key], signed, "sha256")

    def _respell(self, how: str, raw: bytes, signed: bytes) -> str:
        """Return the signature that an entry names, derived from a valid one."""
        r, s, size = raw[:32], raw[32:], len(raw)
        payload = signed.split(b".")[1]
        if how == "plain-base64":
            return self._with_plain_letter(raw, signed)
        if how == "loose-bits":
            text = encode(raw)
            alphabet = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
            return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]
        if how in ("old", "of-another"):
            return (self.good if how == "old" else self.another).split(".")[2]
        spelled = {
            "empty": b"",
            "zero": bytes(size),
            "zero-r": bytes(32) + s,
            "zero-s": r + bytes(32),
            "one": (b"\x00" * 31 + b"\x01") * 2,
            "order": ORDER.to_bytes(32) * 2,
            "ff": b"\xff" * size,
            "swapped": s + r,
            "cut-first": raw[1:],
            "cut-last": raw[:-1],
            "longer": raw + b"\x00",
            "zero-before": b"\x00" + raw,
            "doubled": raw + raw,
            "half": r,
            "der": encode_dss_signature(int.from_bytes(r), int.from_bytes(s)),
            "hex": raw.hex().encode(),
            "last-bit": raw[:-1] + bytes([raw[-1] ^ 1]),
            "first-bit": bytes([raw[0] ^ 128]) + raw[1:],
            "one-byte": b"\x01",
            "huge": b"\x01" * 4000,
            "sha256": hashlib.sha256(payload).digest(),
            "over-payload": self._sign("ours", payload),
            "over-decoded": self._sign("ours", decode(self.h) + b"." + decode(payload.decode())),
        }
        return encode(spelled[how])

    def _with_plain_letter(self, raw: bytes, signed: bytes) -> str:
        """Return a valid signature in the other base64 alphabet, with a character that shows it."""
        while not set(b64encode(raw).decode()) & {"+", "/"}:
            raw = self._sign("ours", signed)
        return b64encode(raw).rstrip(b"=").decode()


def deep(levels: int) -> bytes:
    """Return JSON that is nested to the given depth."""
    return b'{"a":' * levels + b"1" + b"}" * levels
