"""Key ring: the signing keys of this process, in memory, and their encryption.

A key is `next` (published, not yet signing), `active` (signs; there is exactly one), `retired` (verifies
until its last token has expired) or `dropped` (leaked, and refused at once).

Private keys are encrypted for the database with AES-256-GCM and bound to their `kid`. So a copy of the
database reveals no key, and a key that is moved to another row cannot be decrypted.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from sessionapi import ids
from sessionapi.errors import Unavailable
from sessionapi.models import Algorithm, KeyState, StoredKey, VerificationKey

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
_NONCE_SIZE = 12
_RSA_BITS = 2048


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A decrypted key. `public_jwk` is its entry in the JWKS."""

    id: UUID
    kid: str
    algorithm: Algorithm
    state: KeyState
    private_key: PrivateKey = field(repr=False)
    public: VerificationKey
    public_jwk: Mapping[str, Any]


class DecryptionFailed(Exception):
    """None of the server secrets decrypts a key of the ring."""


class KeyRing:
    """The keys in memory; `replace` switches to another state of the ring in one step."""

    def __init__(self, keys: Iterable[SigningKey] = ()) -> None:
        self.replace(keys)

    def replace(self, keys: Iterable[SigningKey]) -> None:
        """Replace the whole ring with these keys."""
        usable = [key for key in keys if key.state != "dropped"]
        self._by_kid = {key.kid: key for key in usable}
        self._active = next((key for key in usable if key.state == "active"), None)
        states = ",".join(sorted(f"{key.kid}:{key.state}" for key in usable))
        self.version = hashlib.sha256(states.encode()).hexdigest()[:16]

    @property
    def active(self) -> SigningKey:
        """The active signing key. Raises Unavailable if the ring has no active key."""
        if self._active is None:
            raise Unavailable("This process has no signing key.")
        return self._active

    def find(self, kid: str) -> VerificationKey | None:
        """Return the key that verifies tokens of this `kid`, or None. It is always the same object."""
        key = self._by_kid.get(kid)
        return None if key is None else key.public

    def opened(self, stored: StoredKey) -> SigningKey | None:
        """Return the key of a row, in the row's state, if the ring already has it decrypted, else None."""
        key = self._by_kid.get(ids.public("key", stored.id))
        return None if key is None else replace(key, state=stored.state)

    def jwks(self) -> dict[str, list[Mapping[str, Any]]]:
        """Return the public parts as a JWK Set (RFC 7517)."""
        return {"keys": [key.public_jwk for key in self._by_kid.values()]}


def generate(algorithm: Algorithm) -> PrivateKey:
    """Return a new private key: P-256 or 2048-bit RSA, which is good until 2030 (NIST SP 800-57)."""
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)


def public_jwk(kid: str, algorithm: Algorithm, private_key: PrivateKey) -> dict[str, Any]:
    """Return the public key as a JWK with its use and its algorithm."""
    public = private_key.public_key()
    if isinstance(public, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = RSAAlgorithm.to_jwk(public, as_dict=True)
    jwk.pop("key_ops", None)
    return {**jwk, "kid": kid, "use": "sig", "alg": algorithm}


def seal(key: bytes, kid: str, private_key: PrivateKey) -> bytes:
    """Return the encrypted private key: nonce ‖ AES-256-GCM, with the `kid` as associated data."""
    plain = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    nonce = ids.new_secret(_NONCE_SIZE)
    return nonce + AESGCM(key).encrypt(nonce, plain, kid.encode())


def unseal(keys: Sequence[bytes], stored: StoredKey) -> SigningKey:
    """Return the decrypted key; DecryptionFailed if it was encrypted with none of `keys`."""
    kid = ids.public("key", stored.id)
    for key in keys:
        try:
            plain = AESGCM(key).decrypt(
                stored.private_key[:_NONCE_SIZE], stored.private_key[_NONCE_SIZE:], kid.encode()
            )
        except InvalidTag:
            continue
        private = load_der_private_key(plain, password=None)
        if not isinstance(private, PrivateKey):
            raise DecryptionFailed(kid)
        public = VerificationKey(kid, stored.algorithm, private.public_key())
        return SigningKey(stored.id, kid, stored.algorithm, stored.state, private, public, stored.public_jwk)
    raise DecryptionFailed(kid)
