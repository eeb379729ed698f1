"""Token issuer: makes the tokens that a client receives for an active session."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from pydantic_core import to_json

from sessionapi import ids
from sessionapi.errors import FieldError, ValidationFailed
from sessionapi.keys.keyring import KeyRing
from sessionapi.models import Session, User
from sessionapi.tokens import access_token, bearer, refresh_token
from sessionapi.tokens.access_token import TokenExpectations
from sessionapi.tokens.refresh_token import RefreshToken

log = structlog.get_logger()

LAST_SECOND = 9_999_999_999
"""Seconds since 1970, with as many digits as any time until the year 2286."""


@dataclass(slots=True)
class Tokens:
    """Tokens of a session, as returned to a client. All `*_in` are seconds from now.

    `is_new` means that the refresh token differs from the one that the client sent, so that a cookie has to
    be set. A login adds the `device_token`.
    """

    access_token: str = field(repr=False)
    expires_in: int
    refresh_token: str = field(repr=False)
    is_new: bool
    session_expires_in: int
    absolute_expires_in: int
    session: Session
    user: User
    device_token: str | None = field(default=None, repr=False)


class Issuer:
    """Issuer of all tokens. `refresh_keys` are derived from the server secrets, the current one first."""

    def __init__(
        self,
        ring: KeyRing,
        rules: TokenExpectations,
        access_token_ttl: timedelta,
        refresh_keys: Sequence[bytes],
    ) -> None:
        self._ring = ring
        self._rules = rules
        self._access_token_ttl = access_token_ttl
        self._refresh_keys = refresh_keys

    def read(self, text: str) -> RefreshToken | None:
        """Return the contents of a refresh token made under the current or an accepted secret, else None."""
        return refresh_token.match(text, self._refresh_keys)

    def issue(self, session: Session, user: User, now: datetime, secret: bytes) -> Tokens:
        """Return the tokens of a session that has a new secret."""
        return self._tokens(session, user, now, self._refresh_token(session, secret), is_new=True)

    def renew(self, session: Session, user: User, now: datetime, shown: RefreshToken) -> Tokens:
        """Return the tokens of a session after its refresh token, of any generation, was presented."""
        moved = session.generation != shown.generation
        text = None if moved else shown.text
        return self._tokens(
            session, user, now, text or self._refresh_token(session, shown.secret), is_new=moved
        )

    def _tokens(self, session: Session, user: User, now: datetime, text: str, *, is_new: bool) -> Tokens:
        end = session.ends_at
        access_token, expires_in = self._access_token(session, user, now, end)
        return Tokens(
            access_token=access_token,
            expires_in=expires_in,
            refresh_token=text,
            is_new=is_new,
            session_expires_in=int((end - now).total_seconds()),
            absolute_expires_in=int((session.expires_at - now).total_seconds()),
            session=session,
            user=user,
        )

    def _refresh_token(self, session: Session, secret: bytes) -> str:
        token = RefreshToken(session.user_id, session.id, session.generation, secret)
        return refresh_token.mint(token, self._refresh_keys[0])

    def refuse_oversized(self, user: User, changed: User) -> None:
        """Raise ValidationFailed if roles or claims would make access tokens that no server accepts.

        A change that makes an oversized token smaller is allowed.
        """
        size = self._longest(changed)
        if size <= bearer.MAX_TOKEN or size < self._longest(user):
            return
        roles = size - self._longest(replace(changed, roles=()))
        claims = size - self._longest(replace(changed, claims={}))
        only_claims, only_roles = user.roles == changed.roles, user.claims == changed.claims
        field_name = "claims" if only_claims or (claims > roles and not only_roles) else "roles"
        text = (
            f"The {field_name} are too large: an access token would have {size} bytes, of which the roles "
            f"take {roles} and the claims {claims}. At most {bearer.MAX_TOKEN} bytes fit in an Authorization "
            "header."
        )
        raise ValidationFailed(text, [FieldError(field_name, "token_too_large", text)])

    def _longest(self, user: User) -> int:
        """Return the size of a user's longest access token: with RS256, which ALGORITHM may select later."""
        return access_token.longest(
            self._claims(user, user.id, ("pwd",), LAST_SECOND, LAST_SECOND, LAST_SECOND)
        )

    def _access_token(self, session: Session, user: User, now: datetime, end: datetime) -> tuple[str, int]:
        """Return (token, lifetime in seconds)."""
        issued_at = int(now.timestamp())
        expires_at = int(access_token_expiry(end, now, self._access_token_ttl).timestamp())
        key, auth_time = self._ring.active, int(session.auth_time.timestamp())
        claims = self._claims(user, session.id, session.amr, issued_at, expires_at, auth_time)
        text = access_token.sign(claims, kid=key.kid, algorithm=key.algorithm, private_key=key.private_key)
        if len(text) > bearer.MAX_TOKEN:
            log.error(
                "access token too large: every request with it is refused; reduce the user's roles or claims",
                user_id=ids.public("user", user.id),
                bytes=len(text),
                at_most=bearer.MAX_TOKEN,
            )
        return text, expires_at - issued_at

    def _claims(
        self,
        user: User,
        session_id: UUID,
        amr: Sequence[str],
        issued_at: int,
        expires_at: int,
        auth_time: int,
    ) -> bytes:
        """Return the claims of an access token as JSON. Ours take precedence over the user's `claims`."""
        claims = {
            name: value for name, value in user.claims.items() if name not in access_token.RESERVED_CLAIMS
        }
        claims |= {
            "iss": self._rules.issuer,
            "aud": self._rules.audience,
            "sub": ids.public("user", user.id),
            "sid": ids.public("sess", session_id),
            "iat": issued_at,
            "exp": expires_at,
            "jti": ids.new_secret().hex(),
            "auth_time": auth_time,
            "amr": list(amr),
            "roles": list(user.roles),
        }
        return to_json(claims)


def access_token_expiry(end: datetime, now: datetime, ttl: timedelta) -> datetime:
    """Return when a new access token expires: after its lifetime or at `end`, whichever is sooner."""
    return min(now + ttl, end)
